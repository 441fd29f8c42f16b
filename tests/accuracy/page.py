# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.accuracy.page JSON``: docs/accuracy.md, of what ``tests.accuracy`` measured."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs/accuracy.md"
_HEAD = """<!-- Written by scripts/accuracy; changes by hand are lost. -->
# Accuracy

Traffic of known size, and how many bytes Weir and its peers are off. The truth is what the applications' own
system calls returned; *up* is client → server, *down* server → client. All tools see the same connections in
the same run:

```
scripts/accuracy         # about five minutes, as root; writes this page
```

{date}, Linux {kernel} in QEMU (the peers need kprobes), {tools}.
"""
_TCP = """
## TCP

Off by so many bytes, up / down. *nothing*: the tool does not show these connections at all. The peers print
whole kB for a connection or an interval, rounded down: that is most of what they are off, and all that short
connections moved. A tool that prints connections as they close says nothing of those that are open; one that
hooks tcp_sendmsg does not see what kernel TLS hands on. Retransmits and headers are in none of these figures.
"""
_UDP = """
## UDP

Of the peers' tools none counts UDP payload by connection.
"""
_REQUESTS = """
## Requests

Of the peers' tools none counts requests.
"""
_MORE = """
## What else proves it

* `tests/kernel/test_tcp_bytes.py`, `test_udp.py`: the same ways, families and more, to the byte, on each
  kernel of the [matrix](kernels-matrix.md) and for each variant of watching TCP.
* `tests/soak`: everything at once while agents are killed, ended and held; every byte, datagram, connection
  and request is there.
* `tests/faults`: each system call of the loader and the agent fails once; counts are exact after it.
"""


def _off(row: Mapping[str, Any], tool: str) -> str:
    said = row["said"].get(tool)
    if said is None:
        return "nothing"
    up, down = said[0] - row["up"], said[1] - row["down"]
    return "**0**" if not up and not down else f"{up:+,} / {down:+,}"


def _table(
    rows: Sequence[Mapping[str, Any]], tools: Sequence[str], truth: str = "up / down"
) -> Iterator[str]:
    yield ""
    yield f"| way | {truth} | " + " | ".join(("Weir", *tools)) + " |"
    yield "|---|---|" + "---|" * (1 + len(tools))
    for row in rows:
        size = f"{row['up']:,} / {row['down']:,}" if truth == "up / down" else f"{row['up']:,}"
        yield f"| {row['way']} | {size} | " + " | ".join(_off(row, tool) for tool in ("weir", *tools)) + " |"


def page(found: Mapping[str, Any]) -> str:
    """The whole page."""
    tools = [
        name for name, about in found["peers"].items() if "does not" not in about and "not inst" not in about
    ]
    about = ", ".join(f"`{name}` ({what})" for name, what in found["peers"].items())
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    lines = [_HEAD.format(date=today, kernel=found["kernel"], tools=about).rstrip(), _TCP.rstrip()]
    lines += [*_table(found["tcp"], tools)]
    lines += [f"\nLeft out: {why}." for why in found["left_out"]]
    lines += [
        _UDP.rstrip(),
        *_table(found["udp"], ()),
        _REQUESTS.rstrip(),
        *_table(found["requests"], (), "requests"),
    ]
    return "\n".join([*lines, _MORE.rstrip()]) + "\n"


if __name__ == "__main__":
    _PAGE.write_text(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8")
