# SPDX-License-Identifier: Apache-2.0
"""One edge from every CPU at once: ``hammer PORT CONNECTIONS REQUESTS DATAGRAMS``.

A process on each CPU serves the same port (SO_REUSEPORT), a process on each CPU asks there: so many
connections, of so many HTTP requests each, and so many datagrams. Prints how many processes asked.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

ASKED = b"GET /hammer HTTP/1.1\r\nHost: weir\r\n\r\n"
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567"
DATAGRAM = b"x" * 101
_HOST = "127.0.0.1"


def _listen(port: int) -> tuple[socket.socket, socket.socket]:
    pair = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        one = socket.socket(socket.AF_INET, kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        one.bind((_HOST, port))
        pair.append(one)
    pair[0].listen(512)
    return pair[0], pair[1]


def _answer(one: socket.socket) -> None:
    with one:
        while one.recv(len(ASKED), socket.MSG_WAITALL):
            one.sendall(ANSWERED)


def _serve(listener: socket.socket) -> None:
    while True:
        one, _ = listener.accept()
        threading.Thread(target=_answer, args=(one,), daemon=True).start()


def _ask(port: int, connections: int, requests: int, datagrams: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for n in range(connections):
            with socket.create_connection((_HOST, port)) as one:
                for _ in range(requests):
                    one.sendall(ASKED)
                    one.recv(len(ANSWERED), socket.MSG_WAITALL)
            for _ in range(datagrams * n // connections, datagrams * (n + 1) // connections):
                out.sendto(DATAGRAM, (_HOST, port))


def main(port: int, *work: int) -> None:
    """Until all have asked."""
    cpus = sorted(os.sched_getaffinity(0))
    servers = [_listen(port) for _ in cpus]
    pids, askers = [], []
    for cpu, (listener, _) in zip(cpus, servers, strict=True):
        if not (pid := os.fork()):
            os.sched_setaffinity(0, {cpu})
            _serve(listener)
        pids.append(pid)
    for cpu in cpus:
        if not (pid := os.fork()):
            os.sched_setaffinity(0, {cpu})
            _ask(port, *work)
            os._exit(0)
        askers.append(pid)
    failed = [pid for pid in askers if os.waitpid(pid, 0)[1]]
    for pid in pids:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
    print(len(cpus), flush=True)
    sys.exit(len(failed))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
