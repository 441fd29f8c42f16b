# SPDX-License-Identifier: Apache-2.0
"""Weir only watches: proven from the programs as the kernel holds them, not from their source."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from tests.kernel.bytecode import TAIL_CALL, analyse, kernel_functions
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.watch import VARIANTS, Watch, asking
from weir.kernel import bpf
from weir.kernel.layout import DESTINATION

#: All that Weir's programs may call: reading, maps of their own, time.
_HARMLESS = {
    "bpf_get_current_task", "bpf_ktime_get_ns", "bpf_map_delete_elem", "bpf_map_lookup_elem",
    "bpf_map_pop_elem", "bpf_map_push_elem", "bpf_map_update_elem", "bpf_probe_read_kernel",
    "bpf_probe_read_kernel_str", "bpf_probe_read_user", "bpf_seq_write", "bpf_sk_cgroup_id",
    "bpf_sk_fullsock",
    "bpf_sk_storage_delete", "bpf_sk_storage_delete_tracing", "bpf_sk_storage_get",
    "bpf_sk_storage_get_tracing",
    "bpf_skb_load_bytes", "bpf_skc_to_tcp_sock", "bpf_get_current_pid_tgid",
    # what BCC makes of a plain load in a kprobe (BPF_FUNC_probe_read)
    "bpf_probe_read_compat",
    # the maps' own functions, which the kernel calls directly
    "__htab_map_lookup_elem", "htab_map_delete_elem", "htab_map_update_elem", "htab_lru_map_delete_elem",
    "htab_lru_map_update_elem",
    # a ring buffer, which user space reads
    "bpf_ringbuf_reserve", "bpf_ringbuf_submit",
    "queue_stack_map_push_elem",
    "stack_map_pop_elem", "trie_lookup_elem", "percpu_array_map_lookup_elem",
}  # fmt: skip
#: These call each other, and nobody else is in their table; so do those of uprobes (tls_, go_), in another.
_CALLERS = (
    "talk_segments", "http_messages", "redis_messages", "http2_messages", "http2_results", "http2_ends",
    "http2_path", "mysql_messages", "postgres_messages", "dns_messages", "segments_again", "tls_links",
    "talk_end", "http2_upgrades", "talk_deferred", "talk_defers",
)  # fmt: skip
#: Programs whose result is a verdict: 1 lets a packet pass (NF_ACCEPT is 1, too).
_VERDICTS = (bpf.CGROUP_SKB, bpf.CGROUP_SOCK, bpf.NETFILTER)


@pytest.fixture(scope="module")
def alone() -> Iterator[Netns]:
    with make_netns() as made:
        yield made


@pytest.fixture(scope="module", params=VARIANTS)
def watch(request: pytest.FixtureRequest, alone: Netns) -> Iterator[Watch]:
    with asking(alone, variant=request.param, tls=64, routes=("/users/{id}",)) as made:
        yield made


def test_every_path_lets_the_packet_pass(watch: Watch) -> None:
    programs = {n: code for n, (kind, code) in watch.kernel.program_code().items() if kind in _VERDICTS}
    assert sorted({*programs} - {"nat_packet"}) == [
        "dns_messages", "http2_ends", "http2_messages", "http2_path", "http2_results", "http2_upgrades",
        "http_messages", "mysql_messages", "postgres_messages", "redis_messages", "segments_again",
        "talk_deferred", "talk_defers", "talk_end", "talk_segments", "tls_links",
        "udp_create", "udp_egress", "udp_ingress",
    ]  # fmt: skip
    for name, code in programs.items():
        assert analyse(code).returns == {1}, name


def test_nothing_is_written_but_maps(watch: Watch) -> None:
    base, names = kernel_functions()
    if not base:
        pytest.skip("kernel addresses are hidden (kernel.kptr_restrict): the called helpers cannot be named")
    for name, (_, code) in watch.kernel.program_code().items():
        found = analyse(code)
        calls = found.calls
        if name in _CALLERS or name.startswith(("tls_", "go_")):
            calls = found.calls - {TAIL_CALL}
        called = {names.get((base + c) % (1 << 64), f"unknown {c:#x}") for c in calls}
        assert called <= _HARMLESS, name
        assert not found.writes_context, name


def test_programs_stay_small(watch: Watch, request: pytest.FixtureRequest) -> None:
    """Far from the verifier's limit of a million instructions on every kernel (it tells them since 5.16)."""
    verified = {p.name: p.instructions for p in watch.kernel.programs()}
    largest = max(verified, key=lambda name: verified[name])
    variant = watch.kernel.facts["variant"]
    told = f"{verified[largest]} ({largest})" if verified[largest] else "not told by this kernel"
    request.node.user_properties.append((f"verified {variant}", told))
    assert verified[largest] < 250_000


def _runs(watch: Watch) -> dict[str, tuple[int, int]]:
    """(runs, ns) of the TCP programs that are not called by user space or at each call of a socket."""
    left_out = ("tcp_send", "tcp_receive", "tcp_call", "tcp_return", "tcp_drain", "tcp_records")
    programs = [p for p in watch.kernel.programs() if p.name.startswith("tcp") and p.name not in left_out]
    return {p.name: (p.runs, p.run_ns) for p in programs}


def test_the_work_does_not_grow_with_the_bytes(
    watch: Watch, alone: Netns, request: pytest.FixtureRequest
) -> None:
    """TCP: a few state changes and a destruction, however many calls and packets it took."""
    connections, calls, short = 7, 1009, 211
    stats = bpf.enable_stats()
    with tcp_pair(alone, alone) as pair:
        for turn in range(1, 6):  # other connections of this host count too: one quiet turn tells
            before = _runs(watch)
            for _ in range(connections):
                pair.run("send", calls * 1000, chunk=1000)
            watch.until(
                lambda: watch.tcp(alone, DESTINATION, pair.port).closed == turn * connections  # noqa: B023
            )
            long = _runs(watch)
            runs_of = {name: runs - before[name][0] for name, (runs, _) in long.items()}
            if max(runs_of.values()) < calls:
                break
        pair.churn(short)
        after = _runs(watch)
    os.close(stats)
    assert runs_of["tcp_state"] >= 6 * connections
    assert max(runs_of.values()) < calls, runs_of
    spent = sum(after[name][1] - ns for name, (_, ns) in long.items()) / short / 1000
    each = ", ".join(f"{name} {(after[name][0] - runs) / short:.3g}" for name, (runs, _) in long.items())
    request.node.user_properties.append(
        (f"cost {watch.kernel.facts['variant']}", f"{spent:.1f} us ({each} runs)")
    )


def test_the_analysis_finds_a_drop_and_a_write() -> None:
    """The proof itself can fail: return 0 on one of two paths; a store to the context, through the stack."""

    def code(*rows: tuple[int, int, int, int]) -> bytes:
        return b"".join(struct.pack("<BBhi", *row) for row in rows)

    drop = code((0xB7, 0, 0, 1), (0x15, 2, 1, 0), (0x95, 0, 0, 0), (0xB7, 0, 0, 0), (0x95, 0, 0, 0))
    assert analyse(drop).returns == {0, 1}
    spilled = code(
        (0x7B, 0x1A, -8, 0), (0x79, 0xA3, -8, 0), (0x62, 3, 8, 7), (0xB7, 0, 0, 1), (0x95, 0, 0, 0)
    )
    assert analyse(spilled).writes_context
    assert analyse(spilled).returns == {1}
