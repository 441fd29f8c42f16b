# SPDX-License-Identifier: Apache-2.0
"""A peer process as the tests hold it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.kernel.peers.netns import Netns

ROOT = Path(__file__).parents[3]
#: Seconds that one command may take.
PATIENCE = 120.0
#: Family as the tests name it -> that of the socket.
FAMILIES = {"v4": socket.AF_INET, "v6": socket.AF_INET6, "mapped": socket.AF_INET6}


def address(netns: Netns, family: str) -> str:
    """The namespace's address as a socket of ``family`` (v4, v6, mapped) writes it."""
    return {"v4": netns.v4, "v6": netns.v6, "mapped": "::ffff:" + netns.v4}[family]


def plain(pair: list[Any]) -> tuple[str, int]:
    """Address and port as the kernel's packets have them: a v4-mapped address is the IPv4 one."""
    return str(pair[0]).removeprefix("::ffff:"), int(pair[1])


class PeerError(OSError):
    """A command failed in the peer; ``name`` is the errno's, such as ECONNRESET."""

    def __init__(self, command: str, name: str) -> None:
        super().__init__(f"{command}: {name}")
        self.name = name


class Peer:
    """Runs :mod:`tests.kernel.peers.actor` in ``netns``, and in the cgroup of folder ``cgroup`` if given."""

    def __init__(self, netns: Netns, cgroup: Path | None = None) -> None:
        enter = f"echo $$ >{cgroup}/cgroup.procs && " if cgroup else ""
        script = f'{enter}exec nsenter --net={netns.path} "$@"'
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "tests.kernel.peers.actor"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT
        )
        self.netns = netns
        self._asked: list[str] = []
        self._heard = b""
        self.ask("hello")  # from here on it is where it should be

    @property
    def pid(self) -> int:
        return self._process.pid

    def post(self, do: str, **arguments: Any) -> None:
        """Gives a command and does not wait; the answers come in the same order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        except BrokenPipeError as error:
            raise PeerError(do, f"peer ended with {self._process.wait()}") from error
        self._asked.append(do)

    def answer(self) -> Mapping[str, Any]:
        """Waits for the oldest unanswered command. A way that this machine lacks skips the test, by name."""
        command = self._asked.pop(0)
        answer = json.loads(self._line(command))
        if "skip" in answer:
            pytest.skip(answer["skip"])
        if "error" in answer:
            raise PeerError(command, answer["error"])
        result: Mapping[str, Any] = answer["ok"]
        return result

    def _line(self, command: str) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
                raise TimeoutError(f"peer {self.pid} did not end {command} in {PATIENCE:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise PeerError(command, f"peer ended with {self._process.wait()}")
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def ask(self, do: str, **arguments: Any) -> Mapping[str, Any]:
        self.post(do, **arguments)
        return self.answer()

    def kill(self) -> None:
        """SIGKILL: the kernel closes what was open."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """The process ends by itself, sockets open or not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
