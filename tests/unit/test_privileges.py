# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from weir.kernel import privileges, sandbox
from weir.kernel.privileges import KEPT, Uses, needed
from weir.kernel.sandbox import CAPABILITIES, Sandbox

ALL = (1 << 41) - 1
CASES: list[tuple[Uses, set[str]]] = [
    (Uses(), {"CAP_BPF"}),
    (Uses(files=True), {"CAP_BPF", "CAP_DAC_READ_SEARCH"}),
    (Uses(services=True), {"CAP_BPF", "CAP_NET_ADMIN"}),
    (Uses(waits=True), {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}),
    (Uses(waits=True, scoped=True), {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"}),
    (Uses(scoped=True), {"CAP_BPF"}),
    (Uses(tls=True), {"CAP_BPF", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}),
]


def given(monkeypatch: pytest.MonkeyPatch, effective: int, proc: str = "rw") -> None:
    monkeypatch.setattr(sandbox, "read", lambda: Sandbox(effective=effective))
    monkeypatch.setattr("weir.kernel.mounts.mounted", lambda _: iter([("/proc", proc)]))


@pytest.mark.parametrize(("uses", "expected"), CASES)
def test_needed(monkeypatch: pytest.MonkeyPatch, uses: Uses, expected: set[str]) -> None:
    given(monkeypatch, ALL)
    assert needed(uses) == expected
    assert expected <= KEPT.keys()


def test_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, 1 << CAPABILITIES["CAP_BPF"])
    assert needed(Uses(tls=True, waits=True, services=True, files=True)) == {"CAP_BPF"}


def test_where_cap_bpf_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 5.7 has 38 capabilities, of which CAP_SYS_ADMIN stands for the ones to come."""
    given(monkeypatch, (1 << 38) - 1)
    assert needed(Uses()) == {"CAP_SYS_ADMIN"}


def test_processes_that_proc_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ALL, "rw,hidepid=invisible")
    assert needed(Uses()) == {"CAP_BPF", "CAP_SYS_PTRACE"}
    given(monkeypatch, ALL, "rw,hidepid=0")
    assert needed(Uses()) == {"CAP_BPF"}


def test_every_kept_one_has_a_reason() -> None:
    assert all(KEPT[name] for name in KEPT)
    assert KEPT.keys() <= CAPABILITIES.keys()
    assert privileges.KEPT is KEPT
