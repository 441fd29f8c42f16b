# SPDX-License-Identifier: Apache-2.0
"""One HTML page with all it needs within it: the file of a report, and the map that the agent serves."""

from __future__ import annotations

import base64
import hashlib
import html as escaping
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any


def html(data: Mapping[str, Any], title: str, *, asks: bool = False) -> tuple[str, str]:
    """The page, and the Content-Security-Policy that is in it: nothing but its own script and style.

    ``asks``: the page may ask the server that it came from.
    """
    web = resources.files("weir") / "web"
    style, script = (web.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    own = "'self'" if asks else "'none'"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}';"
        f" connect-src {own}; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    parts = {"csp": policy, "title": escaping.escape(title), "heading": escaping.escape(title),
             "style": style, "script": script, "data": text}  # fmt: skip
    page = web.joinpath("page.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        before, _, after = page.partition(f"{{{name}}}")
        page = before + part + after
    return page, policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
