# SPDX-License-Identifier: Apache-2.0
"""SR-IOV: the virtual functions (VFs) of this host's network cards, with their hardware counters.

A VF that a program drives from user space (DPDK on vfio-pci) is seen by no socket; its card counts all the
same. The physical function (PF) tells of its VFs by rtnetlink, IFLA_VFINFO_LIST (net/core/rtnetlink.c,
rtnl_fill_vf; the driver's ndo_get_vf_config and ndo_get_vf_stats), also of those that have gone to another
network namespace or to vfio-pci. PCI addresses and drivers are in sysfs (drivers/pci/iov.c: virtfnN).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_FILTER_VF = 1  # RTEXT_FILTER_VF, include/uapi/linux/rtnetlink.h
_LOOK_EVERY = 30.0


@dataclass(frozen=True)
class VirtualFunction:
    """One VF. ``pf`` is its PF's interface, ``index`` its number there; counters are the card's.

    Empty: ``pci_address`` and ``driver`` where the PF is no PCI device, ``interface`` where the VF has none
    in this network namespace. ``namespace``, ``pod``, ``network_name`` are its owner's, once known.
    """

    pf: str
    index: int
    mac: str
    received_bytes: int
    sent_bytes: int
    received_packets: int
    sent_packets: int
    pci_address: str = ""
    driver: str = ""
    interface: str = ""
    namespace: str = ""
    pod: str = ""
    network_name: str = ""


class VirtualFunctions:
    """Reads all VFs; at most ``limit`` of them, in the order of PFs' names and VFs' numbers.

    Which interfaces are PFs with VFs is looked up every 30 s of ``clock``; without any, a read costs nothing,
    and no netlink library is imported. ``failed`` is called for each read that failed.
    """

    def __init__(
        self,
        failed: Callable[[], None] = lambda: None,
        *,
        sysfs: Path = Path("/sys"),
        limit: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failed = failed
        self._net = sysfs / "class/net"
        self._limit = limit
        self._clock = clock
        self._next_look = float("-inf")
        self._pfs: list[str] = []
        self._said = False
        self.dropped = 0

    def read(self) -> tuple[VirtualFunction, ...]:
        """All VFs now; () after a failure, which is logged once in a row."""
        if self._clock() >= self._next_look:
            self._pfs = sorted(self._find())
            self._next_look = self._clock() + _LOOK_EVERY
        if not self._pfs:
            return ()
        try:
            found = [vf for pf in self._pfs for vf in self._of(pf)]
        except Exception as error:  # noqa: BLE001 netlink's errors have no common base; the agent goes on
            if not self._said:
                _log.warning("the VFs of %s cannot be read: %s", ", ".join(self._pfs), error)
            self._said = True
            self._failed()
            return ()
        self._said = False
        self.dropped = max(0, len(found) - self._limit)
        return tuple(found[: self._limit])

    def _find(self) -> Iterator[str]:
        for count in self._net.glob("*/device/sriov_numvfs"):
            try:
                if int(count.read_text(encoding="ascii")) > 0:
                    yield count.parents[1].name
            except (OSError, ValueError):
                continue  # it went just now

    def _of(self, pf: str) -> Iterator[VirtualFunction]:
        for info in query(pf):
            yield self._with_pci(parse(pf, info))

    def _with_pci(self, vf: VirtualFunction) -> VirtualFunction:
        device = self._net / vf.pf / "device" / f"virtfn{vf.index}"
        try:
            address = device.readlink().name
        except OSError:
            return vf
        interfaces = sorted(path.name for path in (device / "net").glob("*"))
        driver = device / "driver"
        return VirtualFunction(
            **{
                **vars(vf),
                "pci_address": address,
                "driver": driver.readlink().name if driver.is_symlink() else "",
                "interface": interfaces[0] if interfaces else "",
            }
        )


def query(pf: str) -> list[Mapping[str, Any]]:
    """Attributes (pyroute2's, by name without ``IFLA_VF_``) of each VF of an interface; [] if it is gone.

    One interface at a time: a reply about all of them at once can be cut off by its size.
    """
    from pyroute2 import IPRoute  # imported late: 25 MB that only hosts with VFs need
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        try:
            links = list(route.link("get", ifname=pf, ext_mask=_FILTER_VF))
        except NetlinkError as error:
            if error.code == 19:  # ENODEV
                return []
            raise
    lists = filter(None, (link.get_attr("IFLA_VFINFO_LIST") for link in links))
    infos = (info["attrs"] for listed in lists for info in listed.get_attrs("IFLA_VF_INFO"))
    return [{name.removeprefix("IFLA_VF_"): value for name, value in info} for info in infos]


def parse(pf: str, info: Mapping[str, Any]) -> VirtualFunction:
    """One VF of :func:`query`; counters that the kernel does not tell are 0."""
    stats = dict(info["STATS"]["attrs"]) if "STATS" in info else {}

    def counter(name: str) -> int:
        return int(stats.get(f"IFLA_VF_STATS_{name}", 0))

    return VirtualFunction(
        pf=pf,
        index=int(info["MAC"]["vf"]),
        mac=str(info["MAC"]["mac"]),
        received_bytes=counter("RX_BYTES"),
        sent_bytes=counter("TX_BYTES"),
        received_packets=counter("RX_PACKETS"),
        sent_packets=counter("TX_PACKETS"),
    )
