# SPDX-License-Identifier: Apache-2.0
"""What rows are called, and which of them are failures."""

from __future__ import annotations

import pytest

from weir.flows.protocols import words
from weir.kernel.layout import METHODS, PROTOCOLS

POST = METHODS.index("POST")


@pytest.mark.parametrize(
    ("protocol", "method", "status", "called"),
    [
        ("tcp", 0, 0, ("", "", "unknown")),
        ("http", POST, 404, ("POST", "404", "success")),
        ("http2", POST, 503, ("POST", "503", "failure")),
        ("http2", POST, 0, ("POST", "", "failure")),
        ("grpc", POST, 1, ("", "OK", "success")),
        ("grpc", POST, 6, ("", "NOT_FOUND", "success")),
        ("grpc", POST, 5, ("", "DEADLINE_EXCEEDED", "failure")),
        ("grpc", POST, 17, ("", "UNAUTHENTICATED", "success")),
        ("grpc", POST, 18, ("", "", "unknown")),
        ("grpc", POST, 43, ("", "CODE42", "success")),
        ("grpc", POST, 0, ("", "", "failure")),
        ("dns", 28, 4, ("AAAA", "NXDOMAIN", "success")),
    ],
)
def test_words(protocol: str, method: int, status: int, called: tuple[str, str, str]) -> None:
    assert words(PROTOCOLS.index(protocol), method, status) == (protocol, *called)
