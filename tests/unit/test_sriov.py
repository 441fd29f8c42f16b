# SPDX-License-Identifier: Apache-2.0
"""VFs: what sysfs and netlink tell. The netlink side with a real kernel: tests/kernel/test_sriov.py."""

from __future__ import annotations

import logging
import struct
import sys
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from tests.unit.synthetic import Clock
from weir.identity import sriov
from weir.identity.sriov import VirtualFunctions, parse

MAC = bytes.fromhex("020000000007")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _vf_info(index: int, stats: dict[int, int] | None) -> bytes:
    """IFLA_VF_INFO as rtnl_fill_vfinfo writes it; ``stats`` by IFLA_VF_STATS_*, RX_PACKETS is 0."""
    mac = _attribute(1, struct.pack("<I", index) + MAC.ljust(32, b"\0"))
    if stats is None:
        return _attribute(1, mac)
    counters = b"".join(_attribute(kind, struct.pack("<Q", value)) for kind, value in stats.items())
    return _attribute(1, mac + _attribute(8, counters))


def _decoded(info: bytes) -> dict[str, object]:
    """Through the library's own decoder: a link message with one VF in its list (IFLA_VFINFO_LIST 22)."""
    body = struct.pack("<BxHiII", 0, 1, 7, 0, 0) + _attribute(22, info)
    message = ifinfmsg(struct.pack("<IHHII", 16 + len(body), 16, 0, 1, 0) + body)
    message.decode()
    (found,) = message.get_attr("IFLA_VFINFO_LIST").get_attrs("IFLA_VF_INFO")
    return {name.removeprefix("IFLA_VF_"): value for name, value in found["attrs"]}


def test_counters() -> None:
    vf = parse("ens1f0", _decoded(_vf_info(3, {0: 1009, 1: 2003, 2: 1 << 40, 3: 7})))
    assert (vf.pf, vf.index, vf.mac) == ("ens1f0", 3, "02:00:00:00:00:07")
    assert (vf.received_packets, vf.sent_packets) == (1009, 2003)
    assert (vf.received_bytes, vf.sent_bytes) == (1 << 40, 7)


def test_a_card_without_counters() -> None:
    vf = parse("ens1f0", _decoded(_vf_info(0, None)))
    assert (vf.received_bytes, vf.sent_bytes, vf.received_packets, vf.sent_packets) == (0, 0, 0, 0)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A PF with two VFs as drivers/pci/iov.c lays them out: one with a netdevice, one on vfio-pci."""
    devices, net = tmp_path / "devices/pci0000:3a", tmp_path / "class/net"
    net.mkdir(parents=True)
    (tmp_path / "drivers/iavf").mkdir(parents=True)
    (tmp_path / "drivers/vfio-pci").mkdir()
    for address in ("0000:3b:00.0", "0000:3b:02.0", "0000:3b:02.1"):
        (devices / address).mkdir(parents=True)
    pf = devices / "0000:3b:00.0"
    (pf / "sriov_numvfs").write_text("2\n", encoding="ascii")
    for number, driver in enumerate(("iavf", "vfio-pci")):
        vf = devices / f"0000:3b:02.{number}"
        (pf / f"virtfn{number}").symlink_to(vf)
        (vf / "driver").symlink_to(tmp_path / "drivers" / driver)
    (devices / "0000:3b:02.0/net/ens1f0v0").mkdir(parents=True)
    for name in ("ens1f0", "lo", "veth1"):
        (net / name).mkdir()
    (net / "ens1f0/device").symlink_to(pf)
    return tmp_path


def _answers(monkeypatch: pytest.MonkeyPatch, vfs: int) -> list[str]:
    asked: list[str] = []

    def query(pf: str) -> list[dict[str, object]]:
        asked.append(pf)
        return [_decoded(_vf_info(n, {2: 100 + n})) for n in range(vfs)]

    monkeypatch.setattr(sriov, "query", query)
    return asked


def test_pci_address_driver_interface(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, 2)
    first, second = VirtualFunctions(sysfs=card).read()
    assert (first.pci_address, first.driver, first.interface) == ("0000:3b:02.0", "iavf", "ens1f0v0")
    assert (second.pci_address, second.driver, second.interface) == ("0000:3b:02.1", "vfio-pci", "")
    assert (first.received_bytes, second.received_bytes) == (100, 101)


def test_a_host_without_vfs_pays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _answers(monkeypatch, 2)
    (tmp_path / "class/net/lo").mkdir(parents=True)
    assert VirtualFunctions(sysfs=tmp_path).read() == ()
    assert asked == []
    assert "weir.identity.sriov" in sys.modules


def test_new_vfs_are_seen_within_half_a_minute(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, 2)
    count, clock = card / "class/net/ens1f0/device/sriov_numvfs", Clock()
    count.write_text("0\n", encoding="ascii")
    vfs = VirtualFunctions(sysfs=card, clock=clock)
    assert vfs.read() == ()
    count.write_text("2\n", encoding="ascii")
    clock.now += 31
    assert len(vfs.read()) == 2


def test_what_is_over_the_limit_is_told(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, 7)
    vfs = VirtualFunctions(sysfs=card, limit=3)
    assert [vf.index for vf in vfs.read()] == [0, 1, 2]
    assert vfs.dropped == 4


def test_a_failure_is_counted_and_logged_once(
    card: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(_: str) -> list[dict[str, object]]:
        raise PermissionError(1, "Operation not permitted")

    failures: list[int] = []
    monkeypatch.setattr(sriov, "query", refuses)
    vfs = VirtualFunctions(lambda: failures.append(1), sysfs=card)
    with caplog.at_level(logging.WARNING):
        assert [vfs.read() for _ in range(3)] == [(), (), ()]
    assert len(failures) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the VFs of ens1f0 cannot be read: [Errno 1] Operation not permitted"
    ]
