# SPDX-License-Identifier: Apache-2.0
"""Holds live TCP connections, both ends, over many edges: ``python -m tests.bench.holder NUMBER``.

Reads ``open N`` (until there are N) or ``move N`` (at most N) a line, answers with how many there are.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.bench import spaces
from tests.bench.figures import Bench

#: Addresses that each process calls: an edge at each end of each, so that slots are spread as on a busy host.
_ADDRESSES = 64
#: Connections (two sockets each) of one process; not every root may have more open files than it was given.
SHARE = min(100_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // 2)


class Holder:
    """The connections of one process."""

    def __init__(self, number: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._ends: list[tuple[socket.socket, socket.socket]] = []
        self._listeners = [
            socket.create_server((f"127.{10 + number}.0.{at + 1}", 7000), backlog=16)
            for at in range(_ADDRESSES)
        ]
        self._addresses = [listener.getsockname() for listener in self._listeners]

    def open(self, count: int) -> int:
        """Open until there are ``count``; how many there are."""
        with suppress(OSError):  # out of ports, files or memory
            while len(self._ends) < count:
                at = len(self._ends) % _ADDRESSES
                client = socket.socket()
                # closed by a reset, so that no TIME_WAIT stays
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.connect(self._addresses[at])
                self._ends.append((client, self._listeners[at].accept()[0]))
        return len(self._ends)

    def move(self, count: int) -> int:
        """One byte over each connection, received too."""
        for client, server in self._ends[:count]:
            client.send(b"x")
            server.recv(1)
        return min(count, len(self._ends))


class Held:
    """Live connections in the bench's namespace, in as many processes as it takes."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        self._bench, self._stack = bench, stack
        self._children: list[subprocess.Popen[str]] = []
        self.sockets = 0

    def grow(self, sockets: int) -> int:
        """Go on until so many sockets live; how many there are (fewer if the machine gives no more)."""
        pairs = sockets // 2
        while SHARE * len(self._children) < pairs:
            self._children.append(self._start())
        for number, child in enumerate(self._children):
            self._post(f"open {min(SHARE, pairs - number * SHARE)}", child)
        self.sockets = 2 * sum(map(self._answer, self._children))
        return self.sockets

    def move(self, count: int = SHARE) -> int:
        """One byte over each connection (``count`` of each process)."""
        for child in self._children:
            self._post(f"move {count}", child)
        return sum(map(self._answer, self._children))

    @staticmethod
    def _post(line: str, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        child.stdin.write(line + "\n")
        child.stdin.flush()

    @staticmethod
    def _answer(child: subprocess.Popen[str]) -> int:
        assert child.stdout is not None
        if not select.select([child.stdout], [], [], 90)[0]:
            raise TimeoutError("the process that holds connections does not answer")
        return int(child.stdout.readline())

    def _start(self) -> subprocess.Popen[str]:
        number = str(len(self._children))
        command = spaces.inside(self._bench.netns, sys.executable, "-m", "tests.bench.holder", number)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": None}
        return self._stack.enter_context(spaces.process(command, self._bench.cache, **pipes))


@contextmanager
def held(bench: Bench) -> Iterator[Held]:
    """No connections yet; none at the end."""
    with ExitStack() as stack:
        yield Held(bench, stack)


def _main() -> None:
    holder = Holder(int(sys.argv[1]))
    gc.disable()
    for line in sys.stdin:
        do, count = line.split()
        print({"open": holder.open, "move": holder.move}[do](int(count)), flush=True)


if __name__ == "__main__":
    _main()
