# SPDX-License-Identifier: Apache-2.0
"""The lines around the table: what is watched, what is shown, which keys there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from weir.views import units
from weir.views.cells import safe
from weir.views.rates import Totals
from weir.views.table import EDGES

HELP = """\
Tab, p, c     pairs, or single connections
r t l n       sort by rate, total, latency or name
s  <  >       next sort, the one before, the one after
/             filter; Enter keeps it, Esc takes the old one
Space         pause and go on
Up Down PgUp PgDn Home End
              move; the cursor stays on its row, Home lets it go
q, Ctrl+C     quit

Filter: words, key:value, and ! before either; all must match.
  nginx !udp   port:443   port:8000-8999   remote:10.0.0.0/8
  keys: name process container unit peer kind role proto state
        local remote address port pid netns

NAME   container, else systemd unit, else process
→ ←    the local end opened the connection, or accepted it
TX RX  payload the local end sent and received, bytes (1 kB = 1000)
RTT    median of a pair; smoothed value of a connection
RETR   TCP segments sent again       * all addresses in one row

Any key closes this page."""


def joined(parts: Iterable[tuple[str, str]], width: int, gap: str = "  ") -> Text:
    """Texts with their styles on one line, as many of them from the left as fit ``width`` cells."""
    line = Text(no_wrap=True)
    for text, style in parts:
        part = Text(gap if line.cell_len else "").append(safe(text), style)
        if line.cell_len + part.cell_len <= width:
            line.append_text(part)
        elif not line.cell_len:
            line.append(safe(text), style)
            line.truncate(width, overflow="ellipsis")
    return line


def head(host: str, source: str, width: int) -> Text:
    """First line: where the rows come from."""
    where = source if host in source else f"{host}, {source}"
    return joined([("weir top", "bold"), (where, "")], width)


def sums(view: str, totals: Totals, losses: Mapping[str, int], width: int) -> Text:
    """Second line: sums of all rows, and what was lost."""
    rates = f"TX {units.per_second(totals.tx)}  RX {units.per_second(totals.rx)}"
    rows = f"{totals.rows:,} pairs" if view == EDGES else f"{totals.rows:,} connections"
    live = f"{totals.live:,} TCP live" if view == EDGES else f"{totals.live:,} established"
    parts = [(rates, "bold"), (rows, ""), (live, "")]
    if any(losses.values()):
        lost = "lost: " + ", ".join(f"{name} {n:,}" for name, n in losses.items() if n)
        if len(rates) + 2 + len(lost) > width:
            lost = f"lost: {sum(losses.values()):,}"
        parts.insert(1, (lost, "bold red"))
    return joined(parts, width)


def status(
    *, problem: str, paused: bool, sort: str, filter_text: str, hidden: int, matched: int, width: int
) -> Text:
    """The line below the table. A problem comes first, in red."""
    parts: list[tuple[str, str]] = []
    if problem:
        parts.append((problem, "red"))
    if paused:
        parts.append(("PAUSED", "bold yellow"))
    if hidden:
        parts.append((f"… and {hidden:,} more", ""))
    parts.append((f"sort {sort}", "dim"))
    if filter_text:
        parts.append((f"filter {filter_text} ({matched:,} match)", "dim" if matched else "yellow"))
    return joined(parts, width)


def keys(view: str, paused: bool, width: int) -> Text:
    """The footer: keys and what they do now."""
    items: Sequence[tuple[str, str]] = (
        ("q", "quit"),
        ("?", "help"),
        ("Tab", "connections" if view == EDGES else "pairs"),
        ("s", "sort"),
        ("/", "filter"),
        ("Space", "resume" if paused else "pause"),
        ("r t l n", "rate total latency name"),
        ("Home", "top"),
    )
    line = Text(no_wrap=True)
    for key, meaning in items:
        part = Text("  " if line.cell_len else "").append(key, "bold").append(f" {meaning}", "dim")
        if line.cell_len + part.cell_len > width:
            break
        line.append_text(part)
    return line
