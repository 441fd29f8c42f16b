# SPDX-License-Identifier: Apache-2.0
"""Many namespaces and processes, one after the other: ``swarm COUNT SENT ANSWERED``.

Each is a new process in a new network namespace, which connects to itself over loopback once, and goes.
Prints how many did.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

_NEWNET, _SET_FLAGS, _UP = 0x40000000, 0x8914, 1  # CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP
PORT = 8080
_libc = ctypes.CDLL(None, use_errno=True)


def _one(sent: bytes, answered: bytes) -> None:
    if _libc.unshare(_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as listener:
        fcntl.ioctl(listener, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
        listener.bind(("127.0.0.1", PORT))
        listener.listen(1)
        with socket.create_connection(("127.0.0.1", PORT)) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(sent)
                server.recv(len(sent), socket.MSG_WAITALL)
                server.sendall(answered)
                client.recv(len(answered), socket.MSG_WAITALL)


def main(count: int, sent: int, answered: int) -> None:
    """Two at a time."""
    texts = b"s" * sent, b"a" * answered
    running: set[int] = set()
    failed = 0
    for _ in range(count):
        while len(running) >= 2:
            pid, code = os.wait()
            running.discard(pid)
            failed += code != 0
        if not (pid := os.fork()):
            _one(*texts)
            os._exit(0)
        running.add(pid)
    for _ in running:
        failed += os.wait()[1] != 0
    print(count - failed, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
