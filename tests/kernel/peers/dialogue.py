# SPDX-License-Identifier: Apache-2.0
"""Both ends of TCP connections in one process, which says byte for byte what it is told to.

Each piece is a segment of its own (TCP_NODELAY, one send), and the other end has read it before the next one
leaves. Run as ``python -m tests.kernel.peers.dialogue``; :class:`Dialogues` starts it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import ROOT

CLIENT, SERVER = "client", "server"
_FAMILIES = {"v4": (socket.AF_INET, "127.0.0.1"), "v6": (socket.AF_INET6, "::1")}
Line = tuple[str, bytes]


class Dialogues:
    """A process in ``netns`` and its connections, by number."""

    def __init__(self, netns: Netns) -> None:
        self.netns = netns
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns.path}", sys.executable, "-m", "tests.kernel.peers.dialogue"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def _ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["ok"]

    def listen(self, family: str = "v4", address: str = "", port: int = 0, defer: bool = False) -> int:
        """A new listener (of the family's loopback address, at any port); its port.

        ``defer``: it gets a connection with its first data (TCP_DEFER_ACCEPT), so the client speaks first.
        """
        return int(self._ask(do="listen", family=family, address=address, port=port, defer=defer))

    def connect(self, port: int, address: str = "") -> int:
        """A new connection; its number."""
        return int(self._ask(do="connect", port=port, address=address))

    def say(self, number: int, lines: Iterable[Line], together: bool = False) -> None:
        """Say these in turn; ``together``: all of them before anything is read."""
        self._ask(
            do="say", number=number, lines=[(who, text.hex()) for who, text in lines], together=together
        )

    def pour(self, number: int, size: int) -> None:
        """So many bytes from the client to the server."""
        self._ask(do="pour", number=number, size=size)

    def close(self, number: int, order: Sequence[str] = (CLIENT, SERVER), reset: bool = False) -> None:
        """Close both ends; ``reset``: with a RST."""
        self._ask(do="close", number=number, order=list(order), reset=reset)

    def once(self, port: int, lines: Iterable[Line], address: str = "") -> None:
        """A connection that says this and no more."""
        number = self.connect(port, address)
        self.say(number, lines)
        self.close(number)

    def __enter__(self) -> Dialogues:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class _Ends:
    """What the process holds."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, int], socket.socket] = {}
        self._pairs: dict[int, dict[str, socket.socket]] = {}
        self._deferred: dict[int, socket.socket] = {}

    def listen(self, family: str, address: str, port: int, defer: bool) -> int:
        kind, loopback = _FAMILIES[family]
        made = socket.socket(kind, socket.SOCK_STREAM)
        made.bind((address or loopback, port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10 * defer)
        made.listen(64)
        port = int(made.getsockname()[1])
        self._listeners[address, port] = made
        return port

    def connect(self, port: int, address: str) -> int:
        listener = self._listeners[address, port]
        client = socket.create_connection(listener.getsockname()[:2], 10)
        number = len(self._pairs) + 1
        self._pairs[number] = {CLIENT: _ready(client)}
        if listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT):
            self._deferred[number] = listener
        else:
            self._pairs[number][SERVER] = _ready(listener.accept()[0])
        return number

    def say(self, number: int, lines: list[tuple[str, str]], together: bool) -> None:
        pair = self._pairs[number]
        for who, text in lines:
            said = bytes.fromhex(text)
            pair[who].sendall(said)
            if listener := self._deferred.pop(number, None):
                pair[SERVER] = _ready(listener.accept()[0])
            if not together:
                _hear(pair[CLIENT if who == SERVER else SERVER], len(said))
        if together:
            for who in pair:
                _hear(
                    pair[CLIENT if who == SERVER else SERVER], sum(len(t) // 2 for w, t in lines if w == who)
                )

    def pour(self, number: int, size: int) -> None:
        pair = self._pairs[number]
        reader = threading.Thread(target=_hear, args=(pair[SERVER], size))
        reader.start()
        block = memoryview(bytes(1 << 20))
        for left in range(size, 0, -len(block)):
            pair[CLIENT].sendall(block[:left])
        reader.join()

    def close(self, number: int, order: list[str], reset: bool) -> None:
        pair = self._pairs[number]
        for who in order:
            if reset:
                pair[who].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            pair[who].close()


def _ready(end: socket.socket) -> socket.socket:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.settimeout(10)
    return end


def _hear(end: socket.socket, size: int) -> None:
    while size:
        piece = end.recv(min(size, 1 << 20))
        if not piece:
            raise EOFError
        size -= len(piece)


def _main() -> None:
    ends = _Ends()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(ends, command.pop("do"))(**command)}
        except (OSError, EOFError) as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
