# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from tests.unit.synthetic import Clock
from weir import log
from weir.log import Logfmt, RateLimit


def record(
    message: str, *arguments: object, level: int = logging.INFO, **fields: object
) -> logging.LogRecord:
    made = logging.LogRecord("weir", level, __file__, 1, message, arguments, None)
    made.fields = fields
    return made


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("http://[::1]:80/metrics", "http://[::1]:80/metrics"),
        (5, "5"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a "quote"', '"a \\"quote\\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines\r\n", '"two\\nlines\\r\\n"'),
        ("tab\there", '"tab\\there"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("grün", "grün"),
    ],
)
def test_quoting(value: object, written: str) -> None:
    """One line a record, and nothing that a terminal acts on, whatever a process calls itself."""
    assert Logfmt(journal=True).format(record("m", key=value)) == f"<6>level=info msg=m key={written}"


def test_line_with_time_or_with_priority() -> None:
    plain = Logfmt(journal=False).format(record("a %s", "b", level=logging.WARNING))
    assert re.fullmatch(r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} level=warning msg="a b"', plain)
    journal = Logfmt(journal=True)
    levels = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
    for level, priority in levels.items():
        assert journal.format(record("x", level=level)).startswith(f"<{priority}>level=")


def test_an_exception_is_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        made = record("failed", level=logging.ERROR)
        made.exc_info = (ValueError, error, error.__traceback__)
    line = Logfmt(journal=True).format(made)
    assert "\n" not in line
    assert 'ValueError: two\\nlines"' in line


def test_rate_limit() -> None:
    clock = Clock()
    limit = RateLimit(burst=3, period=60, clock=clock)
    assert [limit.filter(record("drain failed")) for _ in range(7)] == [True] * 3 + [False] * 4
    assert limit.filter(record("another"))
    clock.now += 59
    assert not limit.filter(record("drain failed"))
    clock.now += 1
    again = record("drain failed", why="x")
    assert limit.filter(again)
    assert Logfmt(journal=True).format(again) == '<6>level=info msg="drain failed" why=x suppressed=5'
    clock.now += 60
    fresh = record("drain failed")
    assert limit.filter(fresh)
    assert "suppressed" not in Logfmt(journal=True).format(fresh)


def test_rate_limit_is_by_the_text_without_its_values_and_bounded() -> None:
    limit = RateLimit(burst=1, clock=Clock())
    assert [limit.filter(record("failed for %s", n)) for n in range(3)] == [True, False, False]
    for n in range(10_000):
        assert limit.filter(record(f"text {n}"))
    assert len(limit._seen) <= 257


def test_setup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger("weir")
    before: Any = root.handlers[:], root.level, root.propagate
    try:
        monkeypatch.setenv("JOURNAL_STREAM", "8:1")
        log.setup("warning")
        log.setup("warning")  # no second handler
        logging.getLogger("weir.some.part").warning("loud")
        logging.getLogger("weir.some.part").info("quiet")
        assert capsys.readouterr().err == "<4>level=warning msg=loud\n"
        monkeypatch.delenv("JOURNAL_STREAM")
        log.setup("info")
        logging.getLogger("weir").info("x")
        assert capsys.readouterr().err.startswith("time=")
    finally:
        root.handlers[:], root.level, root.propagate = before
