# SPDX-License-Identifier: Apache-2.0
"""What scripts read: JSON, one object a reading, or CSV (RFC 4180), one line a row under one heading."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from weir.errors import ConfigError

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
