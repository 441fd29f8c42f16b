# SPDX-License-Identifier: Apache-2.0
"""Patterns of paths: the table finds for any path what trying one pattern after the other finds."""

from __future__ import annotations

import random
import re

import pytest

from weir.errors import ConfigError
from weir.kernel.routes import STEPS, compile_routes

SHOP = (
    "/",
    "/users/me",
    "/users/{id}",
    "/users/{id}/orders/{order}",
    "/static/**",
    "/{page}",
    "/users/",
    "/a//b",
)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/", "/"), ("/users/me", "/users/me"), ("/users/42", "/users/{id}"), ("/users/", "/users/"),
        ("/users", "/{page}"), ("/users/me/orders/7", "/users/{id}/orders/{order}"), ("/users/me/orders", ""),
        ("/users/42/orders/", ""), ("/static", "/{page}"), ("/static/", "/static/**"),
        ("/static/a/b//c", "/static/**"), ("/a/b", ""), ("/a//b", "/a//b"), ("//", ""), ("/USERS/me", ""),
    ],
)  # fmt: skip
def test_first_that_fits(path: str, pattern: str) -> None:
    assert ("", *SHOP)[compile_routes(SHOP).of(path)] == pattern


def _fits(pattern: str, path: str) -> bool:
    parts = re.split(r"(\{\w+\}|\*\*)", pattern)
    text = "".join(
        "[^/]+" if part.startswith("{") else ".*" if part == "**" else re.escape(part) for part in parts
    )
    return re.fullmatch(text, path) is not None


def test_any_patterns() -> None:
    """Against regular expressions, tried in order."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    words = ["a", "b", "ab", "", "{x}", "{y}"]
    for _ in range(300):
        patterns = list(dict.fromkeys(
            "/" + "/".join(chance.choices(words, k=chance.randint(1, 4)) + ["**"] * (chance.random() < 0.2))
            for _ in range(chance.randint(1, 9))
        ))  # fmt: skip
        routes = compile_routes(patterns)
        for _ in range(50):
            path = "/" + "/".join(chance.choices(["a", "b", "ab", "c", ""], k=chance.randint(1, 5)))
            wanted = next((at for at, pattern in enumerate(patterns, 1) if _fits(pattern, path)), 0)
            assert routes.of(path) == wanted, (seed, patterns, path)


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (["users"], "begins with /"),
        (["/a/**/b"], "only be at the end"),
        (["/a b"], "'a b' is neither"),
        (["/{}"], "neither"),
        (["/a?b"], "neither"),
        (["/x" * 41], "longer than 80"),
        (["/a", "/a"], "twice"),
        ([f"/{n}" for n in range(256)], "there can be 255"),
        ([f"/{'/'.join(['{x}'] * (n % 15) + [str(n)])}/**" for n in range(255)], f"more than {STEPS}"),
    ],
)
def test_what_cannot_be(patterns: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compile_routes(patterns)
