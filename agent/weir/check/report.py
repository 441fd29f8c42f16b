# SPDX-License-Identifier: Apache-2.0
"""The findings as a page and as JSON for a bug report: the machine and its rights, nothing personal."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from weir.check.finding import Finding
from weir.kernel.sandbox import CAPABILITIES, Sandbox

#: Grows when a key of the JSON changes its meaning or goes.
SCHEMA = 1


def verdict(rows: Sequence[Finding]) -> str:
    """One line: whether Weir can run, and what stands against it."""
    bad = list(dict.fromkeys(r.feature for r in rows if r.fatal))
    return f"Weir cannot run here: {', '.join(bad)}" if bad else "Weir can run here."


def page(rows: Sequence[Finding]) -> str:
    """A line for each finding, and below it what is lost and how to mend it; the verdict last."""
    width = max(len(r.feature) for r in rows)
    lines, said = [], dict[tuple[str, str], str]()
    for row in rows:
        first = said.setdefault((row.detail, row.remedy), row.feature) if row.cause else row.feature
        again = first != row.feature  # a cause that refuses many things is told once
        detail = f"as {first}" if again else row.detail
        lines.append(f"{row.feature:<{width}}  {row.state:<8}  {detail}")
        for name, text in (("effect", row.effect), ("to mend", "" if again else row.remedy)):
            if text and row.state != "found":
                lines.append(f"{'':<{width}}  {'':<8}    {name}: {text}")
    return "\n".join([*lines, "", verdict(rows)])


def as_json(
    rows: Sequence[Finding], box: Sandbox, loaded: Mapping[str, object] | None = None
) -> dict[str, object]:
    """``schema`` 1: see docs/check.md. No host name, no user name, no address, no path of a user's."""
    names = platform.uname()
    body: dict[str, object] = {
        "schema": SCHEMA,
        "weir": _version(),
        "kernel": {"release": names.release, "version": names.version, "machine": names.machine},
        "distribution": _distribution(),
        "container": box.container,
        "private_namespaces": sorted(box.private),
        "uid_is_root": box.uid == 0,
        "capabilities": {
            name: "effective" if box.has(name) else "not effective" if box.may_have(name) else "dropped"
            for name in CAPABILITIES
        },
        "seccomp": {0: "none", 1: "strict", 2: "filter"}.get(box.seccomp, "not told"),
        "lockdown": box.lockdown or "not told",
        "security_modules": list(box.modules),
        "selinux": {"mode": box.selinux, "type": box.selinux_type},
        "apparmor": box.apparmor,
        "sysctls": dict(box.sysctls),
        "findings": [asdict(r) for r in rows],
        "ok": not any(r.fatal for r in rows),
        "verdict": verdict(rows),
    }
    return body | ({"load": dict(loaded)} if loaded is not None else {})


def _version() -> str:
    try:
        return version("weir-agent")
    except PackageNotFoundError:
        return "not installed"


def _distribution(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    found = {key: value.strip("\"' ") for key, value in pairs}
    return {key.lower(): found[key] for key in ("ID", "VERSION_ID", "PRETTY_NAME") if key in found}
