# SPDX-License-Identifier: Apache-2.0
"""The browser ring: what Weir draws, in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

from tests.kernel.conftest import _ready, instance, netns

__all__ = ["_ready", "instance", "netns"]
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
          "--disable-background-networking", "--disable-component-update"]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (scripts/setup --tests --browser)")
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=found, args=_FLAGS)
        yield made
        made.close()


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a file; at the end nothing was said on the console, and nothing else was asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[BrowserContext] = []

    def refuse(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    def show(
        path: Path, scheme: Literal["light", "dark"] = "light", width: int = 1200, height: int = 900
    ) -> Page:
        contexts.append(browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith("file:") for url in asked), asked
    assert len(asked) == len(contexts)
