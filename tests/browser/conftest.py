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
    """Opens a file or an agent's page; at the end the console is empty, and nobody else was asked.

    With ``offline`` the browser says on its console that the agent cannot be reached.
    """
    said: list[str] = []
    asked: list[str] = []
    origins: list[str] = []
    contexts: list[BrowserContext] = []

    def refuse(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    def tell(text: str, offline: bool) -> None:
        if not (offline and "ERR_INTERNET_DISCONNECTED" in text):
            said.append(text)

    def show(what: Path | str, scheme: Literal["light", "dark"] = "light", *, offline: bool = False) -> Page:
        url = what.as_uri() if isinstance(what, Path) else what
        origins.append(url)
        contexts.append(browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: tell(message.text, offline))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield show
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if "/api/v1/graph" not in url} == set(origins)
    assert all(any(url.startswith(origin) for origin in origins) for url in asked)
