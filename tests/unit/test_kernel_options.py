# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

import pytest

from weir.kernel import plan, sources
from weir.kernel.layout import EVENTS, FAILURES, STRUCTS, bucket_bounds_us, static_asserts
from weir.kernel.options import Fold, KernelOptions, default_folds, fold_prefix

FULL = KernelOptions(
    variant="tracepoint", udp=False, by_process=False, slots=64, connections=65, listeners=66,
    folds=default_folds((ipaddress.ip_network("203.0.113.0/24"),)), netns=(4026531840, 7),
    cgroups=((17, "/sys/fs/cgroup/a b"),), ports=(80, 443),
)  # fmt: skip


def test_json_and_back() -> None:
    assert KernelOptions.from_json(FULL.to_json()) == FULL
    assert KernelOptions.from_json(KernelOptions().to_json()) == KernelOptions()
    assert "\n" not in FULL.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "storage"}, {"udp": True}, {"requests": 64}, {"opaque_ports": (1,)},
        {"skip_ports": (1,)}, {"by_process": True}, {"slots": 128}, {"connections": 1},
        {"listeners": 1}, {"folds": ()}, {"netns": ()}, {"cgroups": ()}, {"ports": (80,)},
    ],
)  # fmt: skip
def test_any_change_changes_the_digest(change: dict[str, object]) -> None:
    changed = replace(FULL, **change)  # type: ignore[arg-type]
    assert changed.digest() != FULL.digest()
    assert replace(FULL).digest() == FULL.digest()
    assert len(FULL.digest()) == 16


@pytest.mark.parametrize(
    ("network", "bits", "address"),
    [
        ("10.0.0.0/8", 104, "::ffff:10.0.0.0"),
        ("0.0.0.0/0", 96, "::ffff:0.0.0.0"),
        ("192.0.2.1/32", 128, "::ffff:192.0.2.1"),
        ("::/0", 0, "::"),
        ("fd00::/8", 8, "fd00::"),
        ("2001:db8::1/128", 128, "2001:db8::1"),
    ],
)
def test_fold_prefix(network: str, bits: int, address: str) -> None:
    assert fold_prefix(network) == (bits, ipaddress.IPv6Address(address).packed)


def longest(folds: tuple[Fold, ...], address: str) -> tuple[int, int]:
    """What the kernel's longest-prefix map finds: bits kept by a source and by a destination."""
    parsed = ipaddress.ip_address(address)
    text = f"::ffff:{address}" if parsed.version == 4 else address
    number = int(ipaddress.IPv6Address(text))
    found = max(
        (bits, fold)
        for bits, prefix, fold in ((*fold_prefix(f.network), f) for f in folds)
        if number >> (128 - bits) == int.from_bytes(prefix, "big") >> (128 - bits)
    )  # fmt: skip
    return found[1].source_bits, found[1].destination_bits


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("198.51.100.7", (128, 0)), ("2001:db8::1", (128, 0)), ("10.1.2.3", (128, 128)),
        ("172.31.255.255", (128, 128)), ("172.32.0.1", (128, 0)), ("127.0.0.1", (128, 128)),
        ("100.64.0.1", (128, 128)), ("169.254.169.254", (128, 128)), ("::1", (128, 128)),
        ("fe80::1", (128, 128)), ("fd12::1", (128, 128)), ("203.0.113.9", (128, 128)),
        ("239.1.1.1", (128, 128)), ("ff02::1", (128, 128)),
    ],
)  # fmt: skip
def test_which_addresses_keep_an_edge_each(address: str, kept: tuple[int, int]) -> None:
    """Public clients become one edge; private ones and named networks do not."""
    class_of = {f.network: f for f in FULL.folds}
    assert len(class_of) == len(FULL.folds)
    assert longest(tuple(sorted(FULL.folds, key=lambda f: f.network)), address) == kept


def test_every_program_is_planned_once() -> None:
    for variant in ("storage", "tracepoint", "kprobe"):
        names = [p.name for p in plan.programs(variant, KernelOptions(), True)]
        assert len(names) == len(set(names))
        without = plan.programs(variant, KernelOptions(udp=False, requests=0), True)
        assert {p.plane for p in without} == {"tcp", "retire"}
        assert not [p for p in plan.programs(variant, KernelOptions(), False) if p.hook == "iter"]


def test_layout_describes_itself() -> None:
    text = static_asserts()
    for name, dtype in STRUCTS.items():
        assert f"sizeof(struct {name}) == {dtype.itemsize}" in text
    assert f"WEIR_FAILURES == {len(FAILURES)}" in text
    assert f"WEIR_EVENTS == {len(EVENTS)}" in text
    bounds = bucket_bounds_us()
    assert (bounds[1:] > bounds[:-1]).all()
    assert bounds[:5].tolist() == [4.0, 8.0, 12.0, 16.0, 20.0]


def test_where_cgroups_are_mounted_is_no_change() -> None:
    """A loader and an agent in containers of their own may see the same cgroup at two places."""
    elsewhere = replace(FULL, cgroups=((17, "/host/cgroup/unified/a b"),))
    assert elsewhere.digest() == FULL.digest()
    assert replace(FULL, cgroups=((18, "/sys/fs/cgroup/a b"),)).digest() != FULL.digest()


def test_bounds_are_not_compiled_in() -> None:
    """Another bound, one more namespace or port compiles nothing anew: the maps are made larger."""
    more = replace(
        FULL, slots=128, connections=1, listeners=1, requests=64, netns=(7,), ports=(443,), translated=1
    )
    assert plan.defines("storage", more, True, True, True) == plan.defines("storage", FULL, True, True, True)
    other = replace(FULL, netns=())
    assert plan.defines("storage", other, True, True) != plan.defines("storage", FULL, True, True)
    everything = replace(
        FULL, tls=3, routes=("/a/{id}", "/b/**"), opaque_ports=(7, 8, 9), skip_ports=(1, 2), translated=23
    )
    found = plan.sizes(everything)
    assert found["slots"] == found["edges"] == found["free_slots"] == 64
    assert (found["conns"], found["listeners"], found["nat"], found["tls_talks"]) == (65, 66, 23, 3)
    assert (found["request_ports"], found["scope_port"], found["scope_netns"]) == (5, 2, 2)
    assert found["folds"] == max(64, len(FULL.folds))


def test_every_map_that_the_loader_makes_larger_has_a_size() -> None:
    """bpf/ says which these are; one that is forgotten would hold one entry."""
    texts = [path.read_text(encoding="utf-8") for path in sources.folder().glob("*.h")]
    shape = re.compile(r"^BPF_(\w+)\((.*\bSIZED\b.*)\);", re.MULTILINE)
    found = [(kind, arguments.split(",")) for text in texts for kind, arguments in shape.findall(text)]
    named = {arguments[3 if kind.endswith("TABLE") else 0].strip() for kind, arguments in found}
    assert named == set(plan.sizes(FULL))
