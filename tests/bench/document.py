# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.md: written by a full run; a run of some benchmarks replaces their chapters only."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path

from tests.bench import machine
from tests.bench.figures import Section, verdict

_HEAD = """<!-- Written by scripts/bench; changes by hand are lost. -->
# Benchmarks

What Weir costs, against the budgets of its design. Every figure comes from one command, as root. Run it on a
machine that does nothing else; each chapter says what the load was when it began:

```
scripts/bench            # all of it, about {minutes} minutes; writes this page
scripts/bench {some}     # some of it; replaces their chapters
scripts/bench --quick    # a smoke run of about a minute; writes nothing
```

All traffic is on the loopback devices of namespaces that the script makes and removes. Figures are medians;
brackets hold the least and the most unless a chapter says otherwise.
"""


def write(path: Path, done: Mapping[str, tuple[Section, str, float]], names: tuple[str, ...]) -> None:
    """``done``: name -> chapter, load when it began, seconds; ``names`` is the order of the chapters."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    rows, chapters = _rows(old), _chapters(old)
    for name, (section, load, seconds) in done.items():
        title = section.title
        rows[title] = [
            _row(title, b.what, b.budget, b.figure, verdict(b.met), b.note) for b in section.budgets
        ]
        today = dt.datetime.now(tz=dt.timezone.utc).date()
        note = f"*{today}, `scripts/bench {name}`, {seconds:.0f} s; load average when it began {load}.*"
        chapters[title] = "\n".join([note, "", *section.lines]).rstrip()
    order = [done[n][0].title for n in names if n in done]
    order += [title for title in chapters if title not in order]
    if len(done) < len(names) and old:
        order = list(chapters)
    text = [_HEAD.format(minutes=11, some=" ".join(names[:2])), "## The machine", "", _machine(), ""]
    text += ["## Budgets", ""]
    text += ["| chapter | what | budget | measured | | what would meet it |", "|---|---|---|---|---|---|"]
    text += [row for title in order for row in rows.get(title, ())]
    for title in order:
        text += ["", f"## {title}", "", chapters[title]]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def _machine() -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in machine.describe())])


def _row(title: str, *cells: str) -> str:
    anchor = re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
    return f"| [{title}](#{anchor}) | " + " | ".join(cells) + " |"


def _rows(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"\| \[(.*?)\]\(#", line):
            found.setdefault(match[1], []).append(line)
    return found


def _chapters(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    return {title: body for title, body in found.items() if title not in ("The machine", "Budgets")}
