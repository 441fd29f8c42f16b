# SPDX-License-Identifier: Apache-2.0
"""Peers from Debian that count TCP bytes: each runs while there is traffic, and is asked by port after it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Bytes = tuple[int, int]


@dataclass(frozen=True)
class Peer:
    """One tool; ``row`` gives of a line of its output the port and the client's bytes (sent, received)."""

    name: str
    package: str
    command: tuple[str, ...]
    ready: str
    row: Callable[[str], tuple[int, Bytes] | None]


def _tcplife(line: str) -> tuple[int, Bytes] | None:
    """``PID COMM [IP] LADDR LPORT RADDR RPORT TX_KB RX_KB MS``, maybe after a time."""
    cells = line.split()
    if len(cells) < 9 or not re.fullmatch(r"[0-9.]+", cells[-1]) or not cells[-4].isdigit():
        return None
    return int(cells[-4]), (int(cells[-3]) * 1024, int(cells[-2]) * 1024)


def _tcptop(line: str) -> tuple[int, Bytes] | None:
    """``PID COMM LADDR RADDR RX_KB TX_KB``, addresses with ports."""
    cells = line.split()
    if len(cells) < 6 or not (cells[-1].isdigit() and cells[-2].isdigit() and ":" in cells[-3]):
        return None
    return int(cells[-3].rpartition(":")[2]), (int(cells[-1]) * 1024, int(cells[-2]) * 1024)


PEERS = (
    Peer("tcplife-bpfcc", "bpfcc-tools", ("tcplife-bpfcc",), "TX_KB", _tcplife),
    Peer("tcplife.bt", "bpftrace", ("tcplife.bt",), "TX_KB", _tcplife),
    Peer("tcptop-bpfcc", "bpfcc-tools", ("tcptop-bpfcc", "-C", "1"), "Tracing", _tcptop),
)


class Tool:
    """A peer that runs."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer = peer
        self._out = folder / peer.name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Its version; or why it does not run here."""
        found = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", self.peer.package],
                               text=True, capture_output=True, check=False)  # fmt: skip
        version = f"{self.peer.package} {found.stdout}".strip()
        path = shutil.which(self.peer.command[0])
        if not path:
            return "not installed"
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [path, *self.peer.command[1:]], stdout=out, stderr=out,
                env={"PYTHONUNBUFFERED": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"},
            )  # fmt: skip
        end = time.monotonic() + 90
        while self._process.poll() is None and time.monotonic() < end:
            if self.peer.ready in self._text():
                time.sleep(1)
                return version
            time.sleep(0.2)
        said = " ".join(self._text().split())[-300:]
        self.stop()
        return f"{version}: does not run here: {said}"

    def _text(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else ""

    def stop(self) -> None:
        """End it, as its user does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def said(self, port: int) -> Bytes | None:
        """What a client of that port sent and received; None if it says nothing of it."""
        rows = [row for line in self._text().splitlines() if (row := self.peer.row(line)) and row[0] == port]
        if not rows:
            return None
        return sum(row[1][0] for row in rows), sum(row[1][1] for row in rows)
