# SPDX-License-Identifier: Apache-2.0
"""``weir check``: what this host offers, what Weir will use, what is refused and why, and what to mend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from weir.check import kernel, rights, trial_load
from weir.check.finding import Finding, Judge
from weir.check.report import as_json, page, verdict
from weir.kernel import sandbox, trials

__all__ = ["Finding", "as_json", "findings", "loaded", "page", "verdict"]

loaded = trial_load.load


def findings(load: Mapping[str, Any] | None = None) -> tuple[list[Finding], sandbox.Sandbox]:
    """All findings in the order of the page, and the rights they were judged by.

    ``load`` is what :func:`loaded` gave, to be told too.
    """
    box = sandbox.read()
    types, about = kernel.btf()
    judge = Judge(trials.run(types), box)
    rows = [*rights.rights(judge), *rights.file_systems(judge), about]
    if types or not about.fatal:
        rows += kernel.kernel(types, judge)
    rows += [*kernel.machine(judge), *_tools()]
    if load is not None:
        rows += trial_load.findings(load)
    return rows, box


def _tools() -> Iterator[Finding]:
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        yield Finding("bcc", "missing", "python3-bpfcc", "nothing can be compiled",
                      "apt-get install python3-bpfcc (RHEL: dnf install python3-bcc)", True)  # fmt: skip
        return
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    number = re.search(r"__version__ *= *['\"]([^'\"]+)", text)
    yield Finding("bcc", "found", number[1] if number else "its version is not told")
