# SPDX-License-Identifier: Apache-2.0
"""Every pod of a cluster in little memory: packed into some 150 bytes each, unpacked when it is asked for.

A pod as Python objects takes 1.5 kB, and an agent on each of 5,000 nodes knows 150,000 of them, most of which
nobody here ever talks to. Figures: docs/scale.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from weir.identity.kube.networks import Attachment
from weir.identity.kube.pods import Pod, number_of
from weir.identity.kube.stays import ALWAYS, Stay
from weir.identity.kube.table import Holders

#: (network, 16 bytes)
Address = tuple[str, bytes]
#: (namespace, name) of a Job, or (node, PCI or MAC address) of a virtual function
Name = tuple[str, str]
#: An address in the default network is its number; another key is told by a tuple.
_Key = int | tuple[str, Any]

_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "ReplicaSet")
_HOST_NETWORK, _RUNNING, _EXACT, _WAITS, _STAYS_EXACT, _PREFIXED = (1 << bit for bit in range(6))


class Kept(NamedTuple):
    """A pod, and when it had its addresses."""

    pod: Pod
    stay: Stay


class _Rest(msgspec.Struct, array_like=True):
    """What few pods have; ``uid`` where it is no UUID."""

    uid: str
    attachments: tuple[Attachment, ...]
    labels: dict[str, str]
    local_uid: str


class _Record(msgspec.Struct, array_like=True):
    """``name`` lacks the workload's where it begins with that; ``addresses`` is bytes for the usual one; a
    time that is None is ALWAYS; a number is one of :class:`Words`.
    """

    namespace: int | str
    name: str
    node: int | str
    workload: str
    kind: int | str
    bits: int
    addresses: bytes | tuple[Address, ...]
    since: float
    heard: float
    stay_since: float
    leaving: float | None
    stay_leaving: float | None
    gone: float | None
    rest: _Rest | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class Words:
    """Names that thousands of pods share, by number. None is ever forgotten, so there is a bound."""

    def __init__(self, most: int = 50_000) -> None:
        self._most = most
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []

    def number(self, word: str) -> int | str:
        """Its number, or the word itself where there are too many."""
        number = self._numbers.get(word)
        if number is None:
            if len(self._words) >= self._most:
                return word
            number = self._numbers[word] = len(self._words)
            self._words.append(word)
        return number

    def word(self, number: int | str) -> str:
        """The word again."""
        return number if isinstance(number, str) else self._words[number]


class PodStore:
    """Pods by uid, and by each of their keys in the order in which they got them."""

    def __init__(self, words: Words | None = None) -> None:
        self._words = words or Words()
        self._records: dict[int, bytes] = {}
        self._holders: Holders[_Key, int] = Holders()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, uid: str) -> Kept | None:
        """A pod by its uid."""
        return self.numbered(number_of(uid))

    def numbered(self, number: int) -> Kept | None:
        """A pod by its uid's number."""
        record = self._records.get(number)
        return self._unpacked(number, record) if record is not None else None

    def put(self, pod: Pod, stay: Stay) -> None:
        """Add or replace."""
        number = number_of(pod.uid)
        record = self._records.get(number)
        old = set(_keys(self._unpacked(number, record).pod)) if record is not None else set()
        new = dict.fromkeys(_keys(pod))
        for key in old - new.keys():
            self._holders.drop(key, number)
        for key in new:
            if key not in old:
                self._holders.add(key, number)
        self._records[number] = self._packed(pod, stay)

    def remove(self, uid: str) -> None:
        """Take one out; nothing where it is not there."""
        number = number_of(uid)
        record = self._records.pop(number, None)
        for key in set(_keys(self._unpacked(number, record).pod)) if record is not None else ():
            self._holders.drop(key, number)

    def at(self, network: str, address: bytes) -> list[Kept]:
        """Who has an address, the youngest holder last."""
        return self._of(_address_key(network, address))

    def named(self, name: Name) -> list[Pod]:
        """Pods of a Job, or with a virtual function, the youngest holder last."""
        return [kept.pod for kept in self._of(name)]

    @property
    def keys(self) -> int:
        """Keys that anybody has."""
        return len(self._holders)

    def __iter__(self) -> Iterator[Kept]:
        for number in list(self._records):
            kept = self.numbered(number)
            if kept is not None:
                yield kept

    def _of(self, key: _Key) -> list[Kept]:
        return [self._unpacked(number, self._records[number]) for number in self._holders.get(key)]

    def _packed(self, pod: Pod, stay: Stay) -> bytes:
        words, prefixed = self._words, pod.name.startswith(pod.workload)
        bits = (
            _HOST_NETWORK * pod.host_network | _RUNNING * pod.running | _EXACT * pod.exact
            | _WAITS * pod.waits | _STAYS_EXACT * stay.exact | _PREFIXED * prefixed
        )  # fmt: skip
        usual = len(pod.addresses) == 1 and not pod.addresses[0][0]
        uid = "" if pod.uid == _uid(number_of(pod.uid)) else pod.uid
        rest = uid or pod.attachments or pod.labels or pod.local_uid
        return _encode(_Record(
            words.number(pod.namespace), pod.name.removeprefix(pod.workload) if prefixed else pod.name,
            words.number(pod.node), pod.workload,
            _KINDS.index(pod.kind) if pod.kind in _KINDS else pod.kind, bits,
            pod.addresses[0][1] if usual else pod.addresses, pod.since, stay.heard, stay.since,
            _or_none(pod.leaving), _or_none(stay.leaving), _or_none(stay.gone),
            _Rest(uid, pod.attachments, pod.labels, pod.local_uid) if rest else None,
        ))  # fmt: skip

    def _unpacked(self, number: int, record: bytes) -> Kept:
        r = _decode(record)
        words, rest, bits = self._words, r.rest or _Rest("", (), {}, ""), r.bits
        pod = Pod(
            rest.uid or _uid(number), words.word(r.namespace),
            r.workload + r.name if bits & _PREFIXED else r.name, words.word(r.node),
            r.workload, _KINDS[r.kind] if isinstance(r.kind, int) else r.kind, bool(bits & _HOST_NETWORK),
            bool(bits & _RUNNING), (("", r.addresses),) if isinstance(r.addresses, bytes) else r.addresses,
            rest.attachments, rest.labels, rest.local_uid, r.since, bool(bits & _EXACT),
            _or_always(r.leaving),
            bool(bits & _WAITS),
        )  # fmt: skip
        stay = Stay(
            r.heard, r.stay_since, bool(bits & _STAYS_EXACT), _or_always(r.stay_leaving), _or_always(r.gone)
        )
        return Kept(pod, stay)


def _uid(number: int) -> str:
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _address_key(network: str, address: bytes) -> _Key:
    return (network, address) if network else int.from_bytes(address, "big")


def _keys(pod: Pod) -> Iterable[_Key]:
    for address in pod.addresses:
        yield _address_key(*address)
    if pod.kind == "Job":
        yield pod.namespace, pod.workload
    for attachment in pod.attachments:
        for name in filter(None, (attachment.pci_address, attachment.mac)):
            yield pod.node, name


def _or_none(time: float) -> float | None:
    return None if time == ALWAYS else time


def _or_always(time: float | None) -> float:
    return ALWAYS if time is None else time
