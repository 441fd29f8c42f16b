# SPDX-License-Identifier: Apache-2.0
"""What scripts read: JSON, one object a reading, or CSV (RFC 4180), one line a row under one heading."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from weir.errors import ConfigError
from weir.views.layout import write

TABLE, JSON, CSV, DOT = "table", "json", "csv", "dot"
#: With these a spreadsheet takes a text for a formula (OWASP, CSV injection): names come from processes.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def form_of(*, as_json: bool, as_csv: bool, as_dot: bool = False) -> str:
    """The one that was asked for. ConfigError where there were two."""
    asked = [form for form, wanted in ((JSON, as_json), (CSV, as_csv), (DOT, as_dot)) if wanted]
    if len(asked) > 1:
        raise ConfigError(f"--{asked[0]} and --{asked[1]}: one of them")
    return asked[0] if asked else TABLE


def write_json(out: TextIO, answer: Mapping[str, Any], indent: int | None = None) -> None:
    """One object; numbers that are none (NaN) are an error."""
    out.write(json.dumps(answer, allow_nan=False, indent=indent) + "\n")


class Csv:
    """Rows under one heading, however many readings they come from."""

    def __init__(self, out: TextIO) -> None:
        self._out = csv.writer(out, lineterminator="\r\n")
        self._names: list[str] = []

    def write(self, rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> None:
        """Rows that all have the keys ``names`` (of mappings, theirs after it: ``failed_reset``)."""
        if not self._names:
            self._names = list(names)
            self._out.writerow(self._names)
        for row in rows:
            flat = dict(flattened(row))
            self._out.writerow([_cell(flat.get(name)) for name in self._names])


class Readings:
    """One reading after the other, each in the form that was asked for."""

    def __init__(self, form: str, out: TextIO, indent: int | None = None) -> None:
        self._form, self._out, self._indent = form, out, indent
        self._csv = Csv(out)

    def tell(
        self,
        about: Mapping[str, Any],
        name: str,
        rows: Sequence[Mapping[str, Any]],
        total: int,
        names: Iterable[str],
        text: Callable[[], Iterable[str]],
    ) -> None:
        """JSON: ``about``, the rows under ``name``, ``total`` (of which they are the first), ``truncated``.

        CSV: the rows with ``about``'s time before them, columns ``names``. Else ``text``, and how many more.
        """
        more = total - len(rows)
        if self._form == JSON:
            write_json(self._out, {**about, name: rows, "total": total, "truncated": more > 0}, self._indent)
        elif self._form == CSV:
            self._csv.write(({"time": about["time"], **row} for row in rows), ["time", *names])
        else:
            write([*text(), *([f"… and {more:,} more"] if more > 0 else [])], self._out)
        self._out.flush()


def flattened(row: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """Keys of mappings within it after theirs."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{name}_")
        else:
            yield before + name, value


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
