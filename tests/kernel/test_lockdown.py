# SPDX-License-Identifier: Apache-2.0
"""Kernels that refuse more than a host's does: lockdown, as a boot option makes it.

``APPEND="lockdown=confidentiality lsm=lockdown,capability" scripts/kernel 6.1 .venv/bin/python -m pytest
tests/kernel/test_lockdown.py``, and the same with ``lockdown=integrity``. On a host these are skipped,
each by name: the mode cannot be lowered again.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kernel.agents import nothing_left, own_instance, weir
from tests.kernel.peers.netns import PREFIX
from weir.kernel import sandbox
from weir.kernel.attach import _KPROBE_TYPE

NAME = f"{PREFIX}locked"


def needs(mode: str) -> None:
    found = sandbox.read().lockdown or "not told"
    if found != mode:
        pytest.skip(f"lockdown is {found} here, not {mode}: run in a guest with APPEND=lockdown={mode}")


def told() -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    done = weir("check", "--json")
    found = json.loads(done.stdout)
    return done.returncode, found, {row["feature"]: row for row in found["findings"]}


def test_confidentiality() -> None:
    """The programs load no more, since they read kernel memory: refused, not missing."""
    needs("confidentiality")
    code, found, rows = told()
    assert (code, found["lockdown"]) == (1, "confidentiality")
    for feature in ("lockdown", "TCP", "UDP by cgroup_skb", "resets sent"):
        assert (rows[feature]["state"], rows[feature]["cause"]) == ("refused", "lockdown"), feature
    assert rows["bpf(2)"]["state"] == "found"
    assert "lockdown=integrity" in rows["lockdown"]["remedy"]
    if _KPROBE_TYPE.exists() and rows["kprobes"]["state"] != "missing":
        assert rows["kprobes"]["cause"] == "lockdown"
    for arguments in (("load",), ("load", "--tcp", "tracepoint"), ("run", "--listen", "127.0.0.1:0")):
        done = weir(*arguments, "--instance", NAME)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (3, "")
        assert "lockdown in confidentiality mode" in line
        assert "lockdown=integrity" in line
        nothing_left(NAME)


def test_integrity() -> None:
    """Enough for Weir: everything loads."""
    needs("integrity")
    code, found, rows = told()
    assert (code, found["lockdown"], rows["lockdown"]["state"]) == (0, "integrity", "found")
    with own_instance() as instance:
        done = weir("load", "--instance", instance)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "down:" not in done.stdout
