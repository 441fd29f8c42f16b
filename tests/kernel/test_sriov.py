# SPDX-License-Identifier: Apache-2.0
"""VFs of a real kernel's simulated card (netdevsim): enumeration, addresses, counters, changes.

netdevsim is no PCI device, so it has no PCI addresses; those, and drivers, are in tests/unit/test_sriov.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agents import Agent
from tests.kernel.peers.netns import make_netns
from weir.identity.sriov import VirtualFunctions

BUS = Path("/sys/bus/netdevsim")


class Card:
    """One simulated PF; ``scripts/netdevsim`` says what its VFs count."""

    def __init__(self, number: int) -> None:
        self._number = number
        (BUS / "new_device").write_text(f"{number} 1", encoding="ascii")
        self._folder = BUS / f"devices/netdevsim{number}"

    @property
    def interface(self) -> str:
        (path,) = (self._folder / "net").iterdir()
        return path.name

    def vfs(self, count: int) -> None:
        if count:
            self.vfs(0)
        (self._folder / "sriov_numvfs").write_text(str(count), encoding="ascii")

    def set(self, vf: int, *what: str) -> None:
        subprocess.run(["ip", "link", "set", self.interface, "vf", str(vf), *what], check=True)

    def remove(self) -> None:
        (BUS / "del_device").write_text(str(self._number), encoding="ascii")


@pytest.fixture
def card() -> Iterator[Card]:
    subprocess.run(["modprobe", "netdevsim"], check=False, capture_output=True)
    if not BUS.exists():
        pytest.skip(
            f"{os.uname().release} has no netdevsim: scripts/netdevsim builds it for scripts/kernel 6.1"
        )
    made = Card(7)
    try:
        yield made
    finally:
        if made._folder.exists():
            made.remove()


def test_vfs_with_addresses_and_counters(card: Card) -> None:
    card.vfs(3)
    card.set(1, "mac", "02:00:00:00:00:07")
    found = VirtualFunctions().read()
    assert [(vf.pf, vf.index) for vf in found] == [(card.interface, n) for n in range(3)]
    assert found[1].mac == "02:00:00:00:00:07"
    assert [(vf.received_bytes, vf.received_packets) for vf in found] == [
        ((n + 1) * 1_000_003, (n + 1) * 1009) for n in range(3)
    ]
    assert [(vf.sent_bytes, vf.sent_packets) for vf in found] == [
        (2 * (n + 1) * 1_000_003, 2 * (n + 1) * 1009) for n in range(3)
    ]
    assert {vf.pci_address for vf in found} == {""}


def test_vfs_come_and_go(card: Card) -> None:
    now = [0.0]
    vfs = VirtualFunctions(clock=lambda: now[0])
    for count in (3, 0, 4):
        card.vfs(count)
        now[0] += 31
        assert len(vfs.read()) == count


def test_a_card_that_goes_while_it_is_read(card: Card) -> None:
    failures: list[int] = []
    vfs = VirtualFunctions(lambda: failures.append(1))
    card.vfs(3)
    assert len(vfs.read()) == 3
    card.remove()
    assert vfs.read() == ()
    assert failures == []


def test_a_card_with_another_name(card: Card) -> None:
    card.vfs(3)
    subprocess.run(["ip", "link", "set", card.interface, "name", "uplink7"], check=True)
    assert {vf.pf for vf in VirtualFunctions().read()} == {"uplink7"}


def test_metrics_of_a_running_agent(card: Card, instance: str) -> None:
    card.vfs(2)
    card.set(1, "mac", "02:00:00:00:00:07")
    with make_netns() as alone, Agent(instance, (alone,)).ready() as agent:
        page = agent.fresh()
    of = {"pf": card.interface, "pci_address": "", "namespace": "", "pod": "", "network_name": ""}
    for vf in (0, 1):
        assert page.sum("weir_sriov_vf_received_bytes_total", vf=vf, **of) == (vf + 1) * 1_000_003
        assert page.sum("weir_sriov_vf_sent_packets_total", vf=vf, **of) == 2 * (vf + 1) * 1009
    assert page.label("weir_sriov_vf_info", "mac", vf=1) == {"02:00:00:00:00:07"}
