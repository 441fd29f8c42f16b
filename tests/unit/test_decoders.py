# SPDX-License-Identifier: Apache-2.0
"""Decoders in user space of what comes from elsewhere, by hypothesis: any bytes, and what must hold of them.

What a run finds is kept here as an example (``@example``), so that it is said again each time.
"""

from __future__ import annotations

import csv
import io
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weir.clustermap import client
from weir.errors import WeirError
from weir.tls.code import CodeError, exits
from weir.views.forms import Csv
from weir.views.layout import laid_out
from weir.views.service_names import ServiceNames
from weir.views.table import columns_of
from weir.views.tap import path_of

THOROUGH = settings(max_examples=500, deadline=None, derandomize=True, database=None)
_WORD = st.text(string.ascii_lowercase + string.digits + "-_.~%!$&'()*+,;=", min_size=1, max_size=20)
_SECRET = st.text(string.ascii_uppercase, min_size=12, max_size=12)
_METHOD = st.sampled_from(["GET", "POST", "OPTIONS", "PROPFIND", "X"])


@THOROUGH
@given(st.binary(max_size=300))
@example(b"GET //user:pw@host HTTP/1.1\r\n")
@example(b"GET http:// HTTP/1.1")
@example(b"CONNECT a@b@c:443 HTTP/1.1")
def test_any_line_has_a_path_or_none(line: bytes) -> None:
    path = path_of(line)
    assert not {"?", "#", " ", "\r", "\n"} & set(path)


@THOROUGH
@given(_METHOD, st.lists(_WORD, max_size=4), _SECRET, st.sampled_from("?#"), st.integers(0, 200))
def test_a_query_is_in_no_path(method: str, parts: list[str], secret: str, mark: str, cut: int) -> None:
    """Wherever the line is cut."""
    path = "/" + "/".join(parts)
    line = f"{method} {path}{mark}key={secret} HTTP/1.1\r\n".encode()
    assert path_of(line) == path
    assert secret not in path_of(line[:cut])


@THOROUGH
@given(_METHOD, _SECRET, _WORD, st.lists(_WORD, max_size=3), st.integers(0, 200))
def test_a_password_is_in_no_path(method: str, secret: str, host: str, parts: list[str], cut: int) -> None:
    """Of an absolute form (RFC 9112 3.2.2), whole or cut."""
    path = "/" + "/".join(parts)
    line = f"{method} http://me:{secret}@{host}{path} HTTP/1.1\r\n".encode()
    assert path_of(line) == path
    assert secret not in path_of(line[:cut])


@THOROUGH
@given(st.binary(max_size=400), st.integers(0, 2**47), st.sampled_from(["x64", "AArch64"]))
def test_any_code_ends_or_is_refused(code: bytes, address: int, machine: str) -> None:
    """A return is told only where there is one: within the code."""
    try:
        found = exits(code, address, machine)
    except CodeError:
        return
    assert all(address <= at < address + len(code) for at in found.returns)


_KEYS = st.sampled_from(["metric", "value", "values", "histogram", "histograms", "buckets", "x"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@THOROUGH
@given(_JSON)
@example([{"metric": {}, "histogram": [1, {"buckets": [[0, "a", "b"]]}]}])
@example([{"metric": {}, "histogram": [1, None]}])
@example([{"metric": [1], "value": [1, "2"]}])
def test_any_answer_is_points_or_one_error(answer: object) -> None:
    asked = client.Client(client.Where("http://127.0.0.1:1"))
    asked._asked = lambda *_: {"data": {"result": answer}}  # type: ignore[method-assign]
    try:
        asked.instant("up", 0)
    except WeirError:
        return
    assert isinstance(answer, (list, dict, str))


@THOROUGH
@given(st.text(max_size=40), st.floats() | st.integers() | st.none())
def test_any_cell_of_csv_is_one_cell(text: str, number: object) -> None:
    """Read back as it was, but for what a spreadsheet would run."""
    out = io.StringIO(newline="")
    Csv(out).write([{"a": text, "b": number}], ["a", "b"])
    _, (first, _) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert first.removeprefix("'") == text.removeprefix("'")


@pytest.mark.parametrize("view", ["edges", "connections"])
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(width=st.integers(1, 400))
def test_a_table_is_never_wider_than_its_terminal(view: str, width: int) -> None:
    layout = laid_out(columns_of(view, ServiceNames()), width)
    assert sum(layout.widths) + len(layout.widths) - 1 <= width
