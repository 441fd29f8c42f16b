# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of HTTP/1.1, as bytes."""

from __future__ import annotations

import random
from collections import Counter


def get(path: str = "/", method: str = "GET", body: bytes = b"", *headers: str) -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return (
        "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a.test", *headers, *length, "", ""]).encode() + body
    )


def answer(status: int, body: bytes | None = b"", *headers: str) -> bytes:
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    lines = [f"HTTP/1.1 {status} Word", "Server: test", *headers, *length, "", ""]
    return "\r\n".join(lines).encode() + (body or b"")


def chunked(status: int, *chunks: bytes, trailer: str = "") -> bytes:
    head = answer(status, None, "Transfer-Encoding: chunked")
    return head + b"".join(b"%x;x=1\r\n%s\r\n" % (len(c), c) for c in chunks) + f"0\r\n{trailer}\r\n".encode()


def conversation(rng: random.Random) -> tuple[list[bytes], list[bytes], Counter[tuple[str, str, int]]]:
    """Requests, their answers, and what is to be counted."""
    asked, said = [], []
    counts: Counter[tuple[str, str, int]] = Counter()
    for _ in range(rng.randint(1, 12)):
        method = rng.choice(["GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"])
        status = rng.choice([200, 200, 201, 204, 302, 304, 400, 404, 500, 503])
        headers = [f"X-{i}: {'v' * rng.randint(0, 120)}" for i in range(rng.randint(0, 6))]
        body = rng.randbytes(rng.choice([0, 1, 99, 3000])) if method in ("POST", "PUT") else b""
        one = get("/" + "p" * rng.randint(0, 150), method, body, *headers)
        if rng.random() < 0.3:
            one = one.replace(b"Content-Length", b"content-LENGTH").replace(b"Host:", b"host:  ")
        asked.append(one)
        if method == "HEAD" or status in (204, 304):
            reply = answer(status, None, *headers)
        elif rng.random() < 0.5:
            reply = chunked(status, *(rng.randbytes(rng.randint(1, 700)) for _ in range(rng.randint(0, 5))))
        else:
            reply = answer(status, rng.randbytes(rng.choice([0, 1, 500, 20000])), *headers)
        said.append((b"HTTP/1.1 100 Continue\r\n\r\n" if rng.random() < 0.2 else b"") + reply)
        counts["http", method, status] += 1
    return asked, said, counts


def cut(rng: random.Random, text: bytes) -> list[bytes]:
    places = sorted(rng.sample(range(1, len(text)), min(len(text) - 1, rng.choice([0, 0, 1, 3, 9]))))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
