# SPDX-License-Identifier: Apache-2.0
"""A scraper in a process of its own: ``fetch PORT TIMES ENCODING`` prints seconds and bytes of each reply."""

from __future__ import annotations

import json
import sys
import time
import urllib.request


def main(port: str, times: str, encoding: str) -> None:
    """Fetch /metrics one after the other."""
    found = []
    for _ in range(int(times)):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept-Encoding": encoding}
        )
        started = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as reply:
            size = len(reply.read())
        found.append((time.perf_counter() - started, size))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
