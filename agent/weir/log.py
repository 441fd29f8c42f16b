# SPDX-License-Identifier: Apache-2.0
"""Log lines as ``key=value`` (logfmt), rate-limited, with journald's priority when it reads them."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Logfmt(logging.Formatter):
    """One line a record: time, level, message, then the fields given by ``extra={"fields": {...}}``."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        head = {} if self._journal else {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        fields = {**head, "level": record.levelname.lower(), "msg": record.getMessage(),
                  **getattr(record, "fields", {})}  # fmt: skip
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        line = " ".join(f"{key}={_quote(value)}" for key, value in fields.items())
        return f"<{_PRIORITY.get(record.levelno, 6)}>{line}" if self._journal else line


def _quote(value: object) -> str:
    text = str(value)
    if text.isprintable() and text and not any(c in text for c in ' "=\\'):
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    """No character ends the line, the quotes, or does something to a terminal."""
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else char.encode("unicode_escape").decode()


class RateLimit(logging.Filter):
    """Lets ``burst`` lines of one message text through in ``period`` seconds, and says what it held back."""

    def __init__(
        self, burst: int = 5, period: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst, self._period, self._clock = burst, period, clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        since, count = self._seen.get(record.msg, (now, 0))
        if now - since >= self._period:
            if count > self._burst:
                record.fields = {**getattr(record, "fields", {}), "suppressed": count - self._burst}
            since, count = now, 0
        if len(self._seen) > 256:
            self._seen.clear()
        self._seen[record.msg] = (since, count + 1)
        return count < self._burst


def setup(level: str = "info") -> None:
    """Send the program's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Logfmt("JOURNAL_STREAM" in os.environ))
    handler.addFilter(RateLimit())
    root = logging.getLogger("weir")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    sys.unraisablehook = _unraisable


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """An error in a destructor, which changes nothing: a line for who looks, not a traceback for all."""
    logging.getLogger("weir").debug("an error that nobody could be told of", extra={"fields": {
        "error": repr(told.exc_value), "of": repr(told.object)}})  # fmt: skip
