# SPDX-License-Identifier: Apache-2.0
"""Every way to write to and read from a TCP socket; runs inside the peers.

Each is a generator of the number of bytes that one system call took or gave, so that what happened before an
error is counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from tests.kernel.peers.native import UnsupportedError, uring_send

Send = Callable[[socket.socket, memoryview, int], Iterator[int]]
Read = Callable[[socket.socket, int], Iterator[int]]

SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
#: Bytes that TLS 1.2 with AES-GCM adds to each record: header, explicit nonce, tag.
TLS_OVERHEAD = 5 + 8 + 16


def _chunks(data: memoryview, chunk: int) -> Iterator[memoryview]:
    for at in range(0, len(data), chunk):
        yield data[at : at + chunk]


def send(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    for piece in _chunks(data, chunk):
        while piece:
            n = sock.send(piece)
            yield n
            piece = piece[n:]


def random_sizes(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    """Calls of 1 to ``chunk`` bytes, the same ones for the same arguments."""
    sizes = random.Random(len(data))
    while data:
        n = sock.send(data[: sizes.randint(1, chunk)])
        yield n
        data = data[n:]


def write(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    while data:
        n = os.write(sock.fileno(), data[:chunk])
        yield n
        data = data[n:]


def writev(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    while data:
        n = os.writev(sock.fileno(), list(_chunks(data[: 8 * chunk], chunk)))
        yield n
        data = data[n:]


def sendmsg(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    while data:
        n = sock.sendmsg(list(_chunks(data[: 8 * chunk], chunk)))
        yield n
        data = data[n:]


@contextlib.contextmanager
def _file(data: memoryview) -> Iterator[int]:
    fd = os.memfd_create("weir-peer")
    try:
        os.truncate(fd, len(data))
        os.pwrite(fd, data, 0)
        yield fd
    finally:
        os.close(fd)


def sendfile(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    with _file(data) as fd:
        at = 0
        while at < len(data):
            n = os.sendfile(sock.fileno(), fd, at, min(chunk, len(data) - at))
            yield n
            at += n


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def splice(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    with _file(data) as fd, _pipe() as (out, into):
        left = len(data)
        while left:
            held = os.splice(fd, into, min(chunk, left))
            left -= held
            while held:
                n = os.splice(out, sock.fileno(), held)
                yield n
                held -= n


def zerocopy(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    """MSG_ZEROCOPY; waits for the completion of each send before it lets go of the memory."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    except OSError as error:
        raise UnsupportedError("MSG_ZEROCOPY: SO_ZEROCOPY is refused") from error
    calls = 0
    for piece in _chunks(data, chunk):
        while piece:
            n = sock.send(piece, MSG_ZEROCOPY)
            calls += 1
            yield n
            piece = piece[n:]
    done = 0
    while done < calls:
        done += _completions(sock)


def _completions(sock: socket.socket) -> int:
    """Sends completed by one message of the error queue (struct sock_extended_err: a range of calls)."""
    poll = select.poll()
    poll.register(sock, 0)
    if not poll.poll(5000):
        raise TimeoutError("no MSG_ZEROCOPY completion in 5 s")
    _, controls, _, _ = sock.recvmsg(0, 128, socket.MSG_ERRQUEUE)
    first, last = struct.unpack_from("=II", controls[0][2], 8)
    return int(last - first + 1)


def io_uring(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    yield uring_send(sock, bytes(data), chunk)


def partial(sock: socket.socket, data: memoryview, _chunk: int) -> Iterator[int]:
    """Non-blocking: offers all that is left, takes what fits, waits for room."""
    sock.setblocking(False)
    try:
        while data:
            select.select([], [sock], [])
            n = sock.send(data)
            yield n
            data = data[n:]
    finally:
        sock.setblocking(True)


def threads(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    """Four threads at once on one socket."""
    totals = [0] * 4

    def work(i: int) -> None:
        share = len(data) * (i + 1) // 4 - len(data) * i // 4
        for n in send(sock, data[:share], chunk):
            totals[i] += n

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    yield from totals


def fork(sock: socket.socket, data: memoryview, chunk: int) -> Iterator[int]:
    """Three processes at once on one socket: two children that exit, and this one."""
    third = len(data) // 3
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            os._exit(int(sum(send(sock, data[:third], chunk)) != third))
        children.append(child)
    yield from send(sock, data[2 * third :], chunk)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise ChildProcessError(errno.ECHILD, f"child ended with {status}")
        yield third


SENDS: dict[str, Send] = {
    "send": send,
    "random": random_sizes,
    "write": write,
    "writev": writev,
    "sendmsg": sendmsg,
    "sendfile": sendfile,
    "splice": splice,
    "zerocopy": zerocopy,
    "io_uring": io_uring,
    "partial": partial,
    "threads": threads,
    "fork": fork,
}


def recv(sock: socket.socket, size: int) -> Iterator[int]:
    """Reads up to ``size`` bytes; fewer mean the end of the stream (as for all that follow)."""
    left = size
    while left and (n := len(sock.recv(min(left, 1 << 16)))):
        yield n
        left -= n


def peek(sock: socket.socket, size: int) -> Iterator[int]:
    """Looks at everything first (MSG_PEEK), which must not count."""
    left = size
    while left and (seen := len(sock.recv(min(left, 1 << 16), socket.MSG_PEEK))):
        n = len(sock.recv(seen))
        yield n
        left -= n


def waitall(sock: socket.socket, size: int) -> Iterator[int]:
    left = size
    while left and (n := len(sock.recv(min(left, 1 << 18), socket.MSG_WAITALL))):
        yield n
        left -= n


def splice_out(sock: socket.socket, size: int) -> Iterator[int]:
    with _pipe() as (out, into):
        left = size
        while left and (n := os.splice(sock.fileno(), into, min(left, 1 << 16))):
            yield n
            left -= n
            while n:
                n -= len(os.read(out, n))


def slow(sock: socket.socket, size: int) -> Iterator[int]:
    """A reader that keeps the window full: 16 KiB every millisecond."""
    left = size
    while left and (n := len(sock.recv(min(left, 1 << 14)))):
        yield n
        left -= n
        time.sleep(0.001)


READS: dict[str, Read] = {
    "recv": recv,
    "peek": peek,
    "waitall": waitall,
    "splice": splice_out,
    "slow": slow,
}


def start_tls(sock: socket.socket, *, transmit: bool) -> None:
    """Hands one direction to kernel TLS (1.2, AES-128-GCM) with a fixed key."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as error:
        raise UnsupportedError(f'kTLS: TCP_ULP "tls" is refused ({os.strerror(error.errno or 0)})') from error
    crypto = struct.pack("=HH8s16s4s8s", 0x0303, 51, bytes(8), b"weir" * 4, b"salt", bytes(8))
    sock.setsockopt(SOL_TLS, TLS_TX if transmit else TLS_RX, crypto)
