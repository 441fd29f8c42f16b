# SPDX-License-Identifier: Apache-2.0
"""From the start of the process to the first byte that is counted."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

from tests.bench import agent, spaces
from tests.bench.figures import Bench, Budget, Section, spread
from tests.kernel.peers.netns import Netns


class Ticker(threading.Thread):
    """Sends a byte a millisecond over one connection and remembers when."""

    def __init__(self, netns: Netns) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        self._stopped = threading.Event()
        with spaces.socket_in(netns) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self._client = spaces.socket_in(netns)
            self._client.connect(listener.getsockname())
            self._server = listener.accept()[0]

    def run(self) -> None:
        while not self._stopped.wait(0.001):
            self.times.append(time.monotonic())
            self._client.send(b"x")
            self._server.recv(1)

    def stop(self) -> None:
        """No byte comes after this."""
        self._stopped.set()
        self.join()

    def close(self) -> None:
        """End the connection."""
        self.stop()
        self._client.close()
        self._server.close()


@dataclass(frozen=True)
class Start:
    """Seconds since the process began: first counted byte, first snapshot (/readyz says yes)."""

    counted: float
    shown: float
    again: float
    lost: int


def _sent(running: agent.Agent) -> int:
    """Bytes that /metrics tells of the source's side."""
    _, page = running.get("/metrics")
    lines = (line for line in page.decode().splitlines() if line.startswith("weir_tcp_sent_bytes_total{"))
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'reporter="source"' in line))


def _once(bench: Bench) -> Start:
    """One start with nothing loaded, then one that finds its pins; bytes flow all the time."""
    instance = spaces.name()
    with contextlib.ExitStack() as stack:
        stack.callback(agent.unload, instance)
        ticker = Ticker(bench.netns)
        stack.callback(ticker.close)
        ticker.start()
        time.sleep(0.05)
        with agent.running(bench, instance=instance, interval=0.2) as running:
            shown = running.wait_ready()
            began = running.started
            time.sleep(0.5)
        with agent.running(bench, instance=instance, interval=0.2) as running:
            again = running.wait_ready()
            ticker.stop()
            time.sleep(0.5)
            counted = _sent(running)
        first = len(ticker.times) - counted
        after = sum(t > began + shown for t in ticker.times)
        return Start(ticker.times[first] - began, shown, again, max(0, after - counted))


_TEXT = """
`weir run` with default options beside a connection that moves a byte every millisecond: how many of these
are missing in the end tells which one was the first counted. Python's bytecode is cached, as an installed
package has it. The second start finds what the first one pinned.
"""


def measure(bench: Bench) -> Section:
    """Several starts."""
    starts = [_once(bench) for _ in range(bench.size(7, 2))]
    section = Section("Start")
    section.text(_TEXT.strip())
    counted, shown, again = ([getattr(s, n) for s in starts] for n in ("counted", "shown", "again"))
    rows = [
        ("nothing loaded: first counted byte", spread(counted, "{:.2f}")),
        ("nothing loaded: first snapshot (`/readyz`)", spread(shown, "{:.2f}")),
        ("pins found: first snapshot", spread(again, "{:.2f}")),
    ]
    section.table((f"{len(starts)} starts", "seconds, median (least to most)"), rows)
    lost = sum(s.lost for s in starts)
    section.text(f"Bytes lost between the two starts: {lost}; the kernel side counts without an agent.")
    figure = f"{spread(counted, '{:.2f}')} s"
    section.budgets.append(Budget("start to first counted byte", "≤ 3 s", figure, max(counted) <= 3))
    section.budgets.append(Budget("restart", "0 bytes lost", f"{lost} lost", lost == 0))
    return section
