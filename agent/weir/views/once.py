# SPDX-License-Identifier: Apache-2.0
"""``weir top --once``: one table, or one JSON object, for scripts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from weir.errors import ConfigError
from weir.views.filters import parse
from weir.views.rates import SORTS, Rated, Rates, Row, ordered
from weir.views.service_names import ServiceNames
from weir.views.source import Source
from weir.views.table import EDGES, VIEWS, Column, columns_of, laid_out, natural

#: An agent takes its snapshots at its own pace; so long do we wait for the next one (seconds).
_PATIENCE = 15.0
_PAUSE = 0.2


def print_once(
    source: Source,
    what: str,
    sort: str,
    filter_text: str,
    limit: int,
    as_json: bool,
    interval: float,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    wall: Callable[[], float] = time.time,
    services: ServiceNames | None = None,
) -> None:
    """Write ``what`` ("edges" or "connections") to ``out``, at most ``limit`` rows.

    Rates are those between two samples ``interval`` seconds apart; with 0 there is one sample and no
    rates. JSON: ``{"time": unix seconds, what: [rows], "total": rows that matched, "truncated": bool}``,
    each row as in ``views.rows`` with ``sent_bytes_per_second`` and ``received_bytes_per_second`` (null
    where not known) besides. ConfigError for a view, sort key or filter that cannot be.
    """
    if what not in VIEWS:
        raise ConfigError(f"{what}: there are {' and '.join(VIEWS)}")
    if sort not in SORTS:
        raise ConfigError(f"sort {sort!r}: choose from {', '.join(SORTS)}")
    match = parse(filter_text)
    rated = _sampled(lambda: _read(source, what), interval, clock, sleep)
    found = ordered([r for r in rated if match(r.row)], sort)
    shown = found[:limit]
    if as_json:
        _write_json(out, what, shown, len(found), wall())
    else:
        _write_table(out, columns_of(what, services or ServiceNames()), shown, len(found), sort)


def _read(source: Source, what: str) -> list[Row]:
    return [*source.edges()] if what == EDGES else [*source.connections()]


def _sampled(
    read: Callable[[], list[Row]],
    interval: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[Rated]:
    rates = Rates()
    rated = rates.update(read(), clock())
    if interval <= 0:
        return rated
    end = clock() + interval + _PATIENCE
    sleep(interval)
    rated = rates.update(read(), clock())
    while not rates.fresh and clock() < end:
        sleep(_PAUSE)
        rated = rates.update(read(), clock())
    return rated


def _write_json(out: TextIO, what: str, shown: list[Rated], total: int, now: float) -> None:
    rows = [
        {**r.row.to_json(), "sent_bytes_per_second": r.tx, "received_bytes_per_second": r.rx} for r in shown
    ]
    answer = {"time": now, what: rows, "total": total, "truncated": total > len(shown)}
    out.write(json.dumps(answer, indent=1, allow_nan=False) + "\n")


def _write_table(out: TextIO, columns: Sequence[Column], shown: list[Rated], total: int, sort: str) -> None:
    if out.isatty():
        layout = laid_out(columns, shutil.get_terminal_size().columns)
    else:
        layout = natural(columns, shown)
    lines = [layout.heading(sort), *(layout.line(r) for r in shown)]
    if total > len(shown):
        lines.append(f"… and {total - len(shown):,} more")
    out.writelines(printable(line, out) + "\n" for line in lines)


def printable(line: str, out: TextIO) -> str:
    """The line as far as the stream's encoding can carry it."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    plain = line.replace("→", ">").replace("←", "<").replace("…", "~").replace("µ", "u").replace("▾", "")
    try:
        line.encode(encoding)
        return line
    except UnicodeEncodeError:
        return plain.encode(encoding, "replace").decode(encoding)
