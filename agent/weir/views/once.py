# SPDX-License-Identifier: Apache-2.0
"""``weir top --once``: a table, JSON or CSV, for scripts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, TextIO

from weir.errors import ConfigError
from weir.kernel.layout import FAILURES
from weir.views.filters import parse
from weir.views.forms import Readings
from weir.views.layout import lines
from weir.views.rates import SORTS, Rated, Rates, Row, ordered
from weir.views.rows import ConnectionRow, EdgeRow
from weir.views.service_names import ServiceNames
from weir.views.source import Source
from weir.views.table import EDGES, VIEWS, columns_of
from weir.views.waiting import later


def print_once(
    source: Source,
    what: str,
    sort: str,
    filter_text: str,
    limit: int,
    form: str,
    interval: float,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    wall: Callable[[], float] = time.time,
    services: ServiceNames | None = None,
    watch: bool = False,
) -> None:
    """Write ``what`` ("edges" or "connections"), at most ``limit`` rows; ``watch``: again and again.

    Rates are those between two samples ``interval`` seconds apart; with 0 there is one sample and no
    rates. JSON: ``{"time": unix seconds, what: [rows], "total": rows that matched, "truncated": bool}``,
    each row as in ``views.rows`` with ``sent_bytes_per_second`` and ``received_bytes_per_second`` (null
    where not known) besides; CSV: the same rows with ``time`` before them. ConfigError for a view, sort key
    or filter that cannot be.
    """
    if what not in VIEWS:
        raise ConfigError(f"{what}: there are {' and '.join(VIEWS)}")
    if sort not in SORTS:
        raise ConfigError(f"sort {sort!r}: choose from {', '.join(SORTS)}")
    match = parse(filter_text)
    columns = columns_of(what, services or ServiceNames())
    readings = Readings(form, out, None if watch else 1)
    rates = Rates()
    if interval > 0:
        rates.update(_read(source, what), clock())
    while True:
        rated = _later(rates, lambda: _read(source, what), interval, clock, sleep)
        found = ordered([r for r in rated if match(r.row)], sort)
        shown = found[:limit]
        rows = [_json(r) for r in shown]
        text = partial(lines, columns, shown, out, sort)
        readings.tell({"time": wall()}, what, rows, len(found), _names(what), text)
        if not watch:
            return


def _json(rated: Rated) -> dict[str, Any]:
    return {**rated.row.to_json(), "sent_bytes_per_second": rated.tx, "received_bytes_per_second": rated.rx}


def _names(what: str) -> list[str]:
    """Of the columns of CSV: as in JSON, what failed by reason."""
    own: list[str] = []
    for field in fields(EdgeRow if what == EDGES else ConnectionRow):
        own += [f"failed_{reason}" for reason in FAILURES] if field.name == "failed" else [field.name]
    return [*own, "sent_bytes_per_second", "received_bytes_per_second"]


def _read(source: Source, what: str) -> list[Row]:
    return [*source.edges()] if what == EDGES else [*source.connections()]


def _later(
    rates: Rates,
    read: Callable[[], list[Row]],
    interval: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[Rated]:
    """With the rates since the last sample; an agent's is the same until its next snapshot."""
    if interval <= 0:
        return rates.update(read(), clock())
    rated: list[Rated] = []

    def fresh() -> bool:
        nonlocal rated
        rated = rates.update(read(), clock())
        return rates.fresh

    later(fresh, interval, clock, sleep)
    return rated
