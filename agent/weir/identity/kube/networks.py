# SPDX-License-Identifier: Apache-2.0
"""A pod's interfaces by the annotation ``k8s.v1.cni.cncf.io/network-status``.

Source: Network Plumbing Working Group, Multi-Network Specification 1.3, section 5 (also the older name of the
annotation, ``networks-status``). Annotations are the users' texts: everything in them is bounded, and what is
not as the specification says is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from weir.identity.cidrs import packed

ANNOTATIONS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")
_MAX_TEXT, _MAX_INTERFACES, _MAX_ADDRESSES, _MAX_NAME = 65536, 64, 16, 253


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of a pod. ``network`` is "" for the cluster's default one; addresses have 16 bytes."""

    network: str
    interface: str
    addresses: tuple[bytes, ...] = ()
    mac: str = ""
    pci_address: str = ""


class _Pci(msgspec.Struct, rename="kebab"):
    pci_address: str = ""


class _Device(msgspec.Struct, rename="kebab"):
    type: str = ""
    pci: _Pci | None = None


class _Entry(msgspec.Struct):
    name: str = ""
    interface: str = ""
    ips: list[str] | None = None
    mac: str = ""
    default: bool = False
    device: _Device | None = msgspec.field(default=None, name="device-info")


class _NotSpecifiedError(Exception):
    """The annotation is not as the specification says."""


_decoder = msgspec.json.Decoder(list[_Entry])


def attachments(annotations: Mapping[str, str] | None) -> tuple[tuple[Attachment, ...], bool]:
    """A pod's interfaces, and whether the annotation (or a part of it) had to be left out."""
    text = next((annotations[name] for name in ANNOTATIONS if name in annotations), "") if annotations else ""
    if not text.strip():
        return (), False
    try:
        entries = _entries(text)
    except (msgspec.MsgspecError, UnicodeError, _NotSpecifiedError):
        return (), True
    found, bad = [], len(entries) > _MAX_INTERFACES
    for entry in entries[:_MAX_INTERFACES]:
        made = _attachment(entry)
        bad |= made is None
        if made is not None:
            found.append(made)
    return tuple(found), bad


def _entries(text: str) -> list[_Entry]:
    if len(text) > _MAX_TEXT:
        raise _NotSpecifiedError
    return _decoder.decode(text)


def _attachment(entry: _Entry) -> Attachment | None:
    network = "" if entry.default else entry.name
    if len(network) > _MAX_NAME or len(entry.interface) > 15 or len(entry.mac) > 59:
        return None
    try:
        addresses = tuple(packed(ip.partition("/")[0]) for ip in (entry.ips or ())[:_MAX_ADDRESSES])
    except ValueError:
        return None
    pci = entry.device.pci.pci_address if entry.device and entry.device.pci else ""
    return Attachment(network, entry.interface, addresses, entry.mac.lower(), pci.lower()[:32])
