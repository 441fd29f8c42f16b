# SPDX-License-Identifier: Apache-2.0
"""``weir tap``: single requests as they end, with who asked whom; sampled, without what is private.

Of a request's text only the method and the path are shown: no query, no fragment, no user or password of
a URI, no header.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any, Protocol, TextIO

import numpy as np

from weir.flows.protocols import FAILURE, words
from weir.kernel.layout import SLOT, UNANSWERED, USED, Array
from weir.views import columns, units
from weir.views.cells import safe
from weir.views.filters import parse
from weir.views.forms import CSV, JSON, TABLE, Csv, write_json
from weir.views.layout import Column, bold, laid_out, printable, write
from weir.views.rows import EdgeRow

_PAUSE = 0.1
#: Seconds between two questions for names that are not known, and between two words of what is skipped.
_NAMES_AGAIN, _SAY_AGAIN = 1.0, 10.0
_CUT = "…"
_HELD = "held back: the agent is over --max-cpu or --max-memory; it goes on by itself"
_GOES_ON = "goes on"


class Tapping(Protocol):
    """Where requests come from (``kernel.tap.Tap``)."""

    def ask(self, requests: int, monotonic_ns: int) -> None:
        """Have up to so many be told from now on."""

    def left(self) -> int:
        """How many more will be told."""

    def read(self) -> Array:
        """Those that were told since the last time (``layout.TAPPED``)."""

    def skipped(self) -> int:
        """Requests that were not told."""

    def held_back(self) -> bool:
        """Whether nobody is told just now."""

    def stop(self) -> None:
        """Nothing more is wanted."""


@dataclass(frozen=True)
class Request:
    """One request. Keys are only added; every key is there in every one.

    ========================= ====== =================================================================
    key                       unit   meaning
    ========================= ====== =================================================================
    time                      s      when it ended, of the system's clock
    direction                        in: the end serves it; out: it asks
    protocol, method, status         as on /metrics
    outcome                          success, failure, unknown
    path                             without query; "" where it is not known
    seconds                   s      null where it was never answered
    source, destination              who asked whom
    destination_port
    edge                             id of the pair (``views.rows.EdgeRow``)
    ========================= ====== =================================================================
    """

    time: float
    direction: str
    protocol: str
    method: str
    status: str
    outcome: str
    path: str
    seconds: float | None
    source: str
    destination: str
    destination_port: int
    edge: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, keys in the order above."""
        return asdict(self)

    def when(self) -> str:
        """Time of day, UTC."""
        return datetime.fromtimestamp(self.time, timezone.utc).strftime("%H:%M:%S.%f")[:-3]

    def took(self) -> str:
        """How long, in the unit that fits."""
        return units.duration_us(None if self.seconds is None else self.seconds * 1e6)

    def line(self) -> str:
        """One line, whole: for pipes and files."""
        what = f"{self.method or units.NONE:8} {self.status or units.NONE:>9} {self.took():>9}"
        ends = f"{self.source} → {self.destination}:{self.destination_port}"
        return safe(
            f"{self.when()}  {self.direction:3}  {self.protocol:10} {what}  {ends}  {self.path}"
        ).rstrip()


#: On a terminal; at 80 columns those that matter most are left.
COLUMNS: tuple[Column[Request], ...] = (
    Column("TIME", 12, 5, lambda r: r.when()),
    Column("DIR", 3, 6, lambda r: r.direction),
    Column("PROTO", 10, 8, lambda r: r.protocol),
    Column("METHOD", 7, 3, lambda r: r.method or units.NONE, most=9),
    Column("STATUS", 7, 1, lambda r: r.status or units.NONE, most=16),
    Column("TOOK", 7, 2, lambda r: r.took(), right=True),
    Column("FROM", 12, 7, lambda r: r.source, most=36),
    Column("TO", 14, 4, lambda r: f"→ {r.destination}:{r.destination_port}", most=42),
    Column("PATH", 18, 0, lambda r: r.path, most=80),
)


def path_of(line: bytes) -> str:
    """The path of a request's first bytes (RFC 9112 3.2), which may be cut; "" where there is none.

    Neither query nor fragment, nor the user, password and host of an absolute form.
    """
    method, _, rest = line.partition(b"\0")[0].partition(b" ")
    target, whole, _ = rest.partition(b" ")
    target = target.partition(b"\r")[0].partition(b"\n")[0]
    if not method or not target:
        return ""
    if method == b"CONNECT":
        target = target.rpartition(b"@")[2]
    elif b"://" in target.partition(b"/")[0] + b"//" and not target.startswith((b"/", b"*")):
        _, slash, path = target.partition(b"://")[2].partition(b"/")
        target = slash + path if slash else b"/" if whole else b""
    path, query, _ = target.replace(b"#", b"?").partition(b"?")
    text = path.decode("utf-8", "replace")
    return text if whole or query else text + _CUT


class Names:
    """Pairs by the slots that the kernel counts them in; asks for rows anew where one is not known."""

    def __init__(
        self, slots: Array, edges: Callable[[], list[EdgeRow]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``slots`` is the live array of them (``kernel.maps.Slots``)."""
        self._slots, self._edges, self._clock = slots, edges, clock
        self._rows: dict[str, EdgeRow] = {}
        self._again = 0.0

    def of(self, slot: int, generation: int) -> tuple[str, EdgeRow | None, Array]:
        """The pair's id, its row if that is known, and its key; the slot may be another one's by now."""
        row = self._slots[slot : slot + 1].copy()
        if int(row["generation"][0]) != generation or int(row["state"][0]) < USED:
            return "", None, np.zeros(1, SLOT["key"])
        (id_,) = columns.opaque_ids([row["key"], row["born_ns"]])
        if id_ not in self._rows and self._clock() >= self._again:
            self._again = self._clock() + _NAMES_AGAIN
            self._rows = {edge.id: edge for edge in self._edges()}
        return id_, self._rows.get(id_), row["key"]


def requests(told: Array, names: Names, offset: float) -> Iterator[tuple[Request, EdgeRow | None]]:
    """What was told, with names; ``offset`` is the system's clock less CLOCK_MONOTONIC, in seconds."""
    for one in told:
        key = one["key"]
        protocol, method, status, outcome = words(
            *(int(key[name]) for name in ("protocol", "method", "status"))
        )
        id_, edge, raw = names.of(int(key["slot"]), int(key["generation"]))
        source, destination = ends(edge, raw)
        took = int(one["took_ns"])
        yield (
            Request(
                int(one["ended_ns"]) / 1e9 + offset, "in" if int(raw["role"][0]) == 2 else "out",
                protocol, method, status, outcome, path_of(one["line"].tobytes()),
                None if took == UNANSWERED else took / 1e9,
                source, destination, int(raw["port"][0]), id_,
            ),
            edge,
        )  # fmt: skip


def ends(edge: EdgeRow | None, key: Array) -> tuple[str, str]:
    """Who asked whom; of a pair whose names are not known (yet), the process and the address."""
    serves = int(key["role"][0]) == 2
    if edge is None:
        near = columns.names(key["comm"])[0] or columns.addresses(key["laddr"])[0]
        far = columns.networks(key["raddr"], key["raddr_bits"])[0]
    else:
        near = _named(edge.namespace, edge.pod or edge.workload)
        far = _named(edge.remote_namespace, edge.remote_pod or edge.remote_workload)
        if edge.remote_kind == "external":
            far = edge.remote_address
    return (far, near) if serves else (near, far)


def _named(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


@dataclass
class Wanted:
    """What to show: which pairs, only what failed, how many a second and in all, how long (0: no end)."""

    filter_text: str = ""
    failures: bool = False
    rate: int = 100
    count: int = 0
    seconds: float = 0.0
    form: str = TABLE


def print_tap(
    tap: Tapping,
    names: Names,
    wanted: Wanted,
    out: TextIO,
    err: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write requests as they end, until there were enough. ConfigError for a filter that cannot be."""
    match = parse(wanted.filter_text)
    rows = Csv(out)
    if wanted.form == TABLE and out.isatty():
        write([bold(laid_out(COLUMNS, shutil.get_terminal_size().columns).heading())], out)
        out.flush()
    began = said = before = clock()
    shown = others = unread = 0
    held = False
    credit = float(max(1, wanted.rate // 10))
    try:
        tap.ask(int(credit), time.monotonic_ns())
        while not wanted.count or shown < wanted.count:
            sleep(_PAUSE)
            now = clock()
            credit = min(wanted.rate, tap.left() + credit % 1 + wanted.rate * (now - before))
            before = now
            found = list(_chosen(requests(tap.read(), names, time.time() - time.monotonic()), match, wanted))
            fit = [r for r in found if r is not None]
            others += found.count(None)
            if wanted.count:
                unread += max(0, len(fit) - (wanted.count - shown))
                fit = fit[: wanted.count - shown]
            shown += len(fit)
            _write(fit, wanted.form, out, rows)
            if wanted.seconds and now - began >= wanted.seconds:
                break
            tap.ask(int(credit), time.monotonic_ns())
            if tap.held_back() != held:
                held = not held
                err.write(f"tap: {_HELD if held else _GOES_ON}\n")
                err.flush()
            if now - said >= _SAY_AGAIN and tap.skipped():
                said = now
                err.write(_summary(shown, others, tap.skipped(), wanted.rate) + "\n")
    finally:
        tap.stop()
        unread += len(tap.read())  # it was ended between two looks
        err.write(_summary(shown, others, tap.skipped(), wanted.rate, unread) + "\n")


def _chosen(
    found: Iterable[tuple[Request, EdgeRow | None]], match: Callable[[EdgeRow], bool], wanted: Wanted
) -> Iterator[Request | None]:
    """Requests, None for each that is not wanted. One whose pair has no names yet matches no filter."""
    for request, edge in found:
        fits = not wanted.filter_text or (edge is not None and match(edge))
        yield request if fits and (not wanted.failures or request.outcome == FAILURE) else None


def _write(found: Sequence[Request], form: str, out: TextIO, rows: Csv) -> None:
    if form == TABLE and out.isatty():
        layout = laid_out(COLUMNS, shutil.get_terminal_size().columns)
        write(map(layout.line, found), out)
        out.flush()
        return
    for request in found:
        if form == JSON:
            write_json(out, request.to_json())
        elif form == CSV:
            rows.write([request.to_json()], [field.name for field in fields(Request)])
        else:
            out.write(printable(request.line(), out) + "\n")
    out.flush()


def _summary(shown: int, others: int, skipped: int, rate: int, unread: int = 0) -> str:
    parts = [f"{shown:,} shown"]
    if others:
        parts.append(f"{others:,} did not match")
    if skipped:
        parts.append(f"{skipped:,} not looked at (more than --rate {rate} a second)")
    if unread:
        parts.append(f"{unread:,} came last and are not shown")
    return "tap: " + ", ".join(parts)
