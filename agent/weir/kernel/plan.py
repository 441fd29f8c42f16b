# SPDX-License-Identifier: Apache-2.0
"""Which programs a variant has and where each is attached: data that the loader follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weir.kernel.options import KernelOptions
from weir.kernel.routes import compile_routes


@dataclass(frozen=True)
class Program:
    """One BPF program.

    ``hook`` is tp_btf, iter, raw_tp, kprobe, kretprobe, cgroup, reader, uprobe (attached by the agent, as
    processes come), uprobe reader or run (by user space); ``targets`` the tracepoint, the iterator's target,
    the functions (those that exist) or the attach types.
    A ``reader`` is called by others: ``targets`` are the protocols it reads ("": a connection's beginning).
    ``over`` is the map an iterator walks. A plane without one of its ``needed`` programs is down.
    ``code`` names the C function where that is not ``name``: a second copy of a program sees the events
    that the kernel keeps from the first one while it runs on that CPU (``bpf_prog.active``; often since
    Linux 7.0, where tracepoints can be preempted). The handlers take an event twice as once.
    """

    name: str
    hook: str
    targets: tuple[str, ...]
    plane: str
    over: str = ""
    needed: bool = True
    code: str = ""


_STORAGE = (
    Program("tcp_drain", "iter", ("bpf_sk_storage_map",), "tcp", over="conns"),
    Program("tcp_records", "iter", ("bpf_sk_storage_map",), "tcp", over="conns", needed=False),
    Program("tcp_destroy", "tp_btf", ("tcp_destroy_sock",), "tcp"),
    Program("tcp_reset_received", "tp_btf", ("tcp_receive_reset",), "tcp", needed=False),
    Program("tcp_reset_sent", "tp_btf", ("tcp_send_reset",), "tcp", needed=False),
    Program("tcp_state", "tp_btf", ("inet_sock_set_state",), "tcp"),
    Program("tcp_state_again", "tp_btf", ("inet_sock_set_state",), "tcp", needed=False, code="tcp_state"),
)
_HASH = (
    Program("tcp_drain", "iter", ("bpf_map_elem",), "tcp", over="conns"),
    Program("tcp_records", "iter", ("bpf_map_elem",), "tcp", over="conns", needed=False),
)
_TRACEPOINT = (
    *_HASH,
    Program("tcp_destroy", "raw_tp", ("tcp_destroy_sock",), "tcp"),
    Program("tcp_reset_received", "raw_tp", ("tcp_receive_reset",), "tcp", needed=False),
    Program("tcp_reset_sent", "raw_tp", ("tcp_send_reset",), "tcp", needed=False),
    Program("tcp_state", "raw_tp", ("inet_sock_set_state",), "tcp"),
    Program("tcp_state_again", "raw_tp", ("inet_sock_set_state",), "tcp", needed=False, code="tcp_state"),
    Program("tcp_send", "raw_tp", ("sock_send_length",), "tcp", needed=False),
    Program("tcp_receive", "raw_tp", ("sock_recv_length",), "tcp", needed=False),
)
_CALLS = ("tcp_sendmsg", "tcp_recvmsg", "tcp_sendpage")
_RESETS = ("tcp_v4_send_reset", "tcp_v6_send_reset", "tcp_send_active_reset")
_KPROBE = (
    *_HASH,
    Program("tcp_destroy", "kprobe", ("tcp_v4_destroy_sock",), "tcp"),
    Program("tcp_reset_received", "kprobe", ("tcp_reset",), "tcp", needed=False),
    Program("tcp_reset_sent", "kprobe", _RESETS, "tcp", needed=False),
    Program("tcp_listen", "kprobe", ("inet_csk_listen_start",), "tcp"),
    Program("tcp_state", "kprobe", ("tcp_set_state",), "tcp"),
    Program("tcp_call", "kprobe", _CALLS, "tcp"),
    Program("tcp_return", "kretprobe", _CALLS, "tcp"),
)
_UDP = (
    Program("udp_records", "iter", ("bpf_sk_storage_map",), "udp", over="udp_socks", needed=False),
    Program("udp_create", "cgroup", ("sock_create",), "udp", needed=False),
    Program("udp_ingress", "cgroup", ("ingress",), "udp"),
    Program("udp_egress", "cgroup", ("egress",), "udp"),
)
_DNS = (Program("dns_expired", "iter", ("bpf_map_elem",), "dns", over="dns_queries", needed=False),)
#: Only with routes.
_PATHS = Program("http2_path", "reader", ("http2 path",), "http2")
_READERS = (
    Program("talk_end", "reader", ("end",), "requests"),
    Program("http_messages", "reader", ("", "http"), "http"),
    Program("redis_messages", "reader", ("redis",), "redis"),
    Program("http2_results", "reader", ("http2 results",), "http2"),
    Program("http2_ends", "reader", ("http2 end",), "http2"),
    _PATHS,
    Program("http2_upgrades", "reader", ("http2 upgrade",), "http2", needed=False),
    Program("http2_messages", "reader", ("http2",), "http2"),  # not without the others, which come first
    Program("postgres_messages", "reader", ("postgresql",), "postgresql"),
    Program("mysql_messages", "reader", ("mysql",), "mysql"),
    Program("dns_messages", "reader", ("dns",), "dns"),
)
_REQUESTS = (
    Program("requests_fold", "run", ("raw_tp",), "requests"),
    *_READERS,
    Program("segments_again", "reader", ("segments",), "requests", code="talk_segments"),
    Program("talk_deferred", "reader", ("deferred",), "requests"),
    Program("talk_defers", "reader", ("defers",), "requests"),
    # after all readers: a connection that finds none is taken for one of a protocol that is not known
    Program("talk_segments", "cgroup", ("ingress", "egress"), "requests"),
)
_TLS_LINKS = (Program("tls_links", "reader", ("tls",), "tls"),)
#: Of ``bpf/weir_tls.c``: what TLS libraries' functions call, and the readers for what they are given.
TLS = (
    *(
        Program(f"tls_{p.name}", "uprobe reader", p.targets, "tls", code=p.name,
                needed=p.plane in ("http", "requests"))
        for p in _READERS
    ),
    *(
        Program(name, "uprobe", (name,), "tls", needed=not name.startswith("go_"))
        for name in ("tls_handshake", "tls_write", "tls_write_ex", "tls_read", "tls_read_ex", "tls_leave",
                     "tls_return", "tls_free", "go_handshake", "go_write", "go_write_once", "go_read",
                     "go_return", "go_close")
    ),
    Program("tls_forget", "run", ("raw_tp",), "tls"),
)  # fmt: skip
#: What learns of translated connections, best first: once a connection; else each packet of the namespaces.
NAT = {
    "kprobe": Program("nat_confirm", "kprobe", ("__nf_conntrack_confirm",), "nat", needed=False),
    "netfilter": Program("nat_packet", "netfilter", ("LOCAL_IN and POSTROUTING",), "nat", needed=False),
}
_RETIRE = (Program("slot_fold", "run", ("raw_tp",), "retire"),)
#: Run by the loader before anything is attached: who listens.
LISTENERS = Program("find_listeners", "iter", ("task_file",), "discovery")
#: Run once by the loader after attaching, in this order, then dropped.
DISCOVERY = (
    LISTENERS,
    Program("find_connections", "iter", ("task_file",), "discovery"),
    Program("find_orphans", "iter", ("tcp",), "discovery", needed=False),
)
#: DNS queries that wait for their answers at once.
_QUERIES = 16384
_VARIANTS = {"storage": _STORAGE, "tracepoint": _TRACEPOINT, "kprobe": _KPROBE}
#: Maps that the agent opens; the others are kept alive by the programs.
PINNED_MAPS = ("slots", "events", "edges", "free_slots", "tracked", "listeners", "nat",
               "requests", "request_rows", "free_requests", "readers", "tls_talks",
               "tls_calls", "tap", "tapped", "shed", "server_ports")  # fmt: skip
#: Maps of ``bpf/weir_tls.c`` that are not those of ``bpf/weir.c``, and that the agent opens.
TLS_MAPS = {"readers": "tls_readers", "tls_h2s": "tls_h2s"}


def _routed(program: Program, options: KernelOptions) -> bool:
    return bool(options.routes) or (program.code or program.name) != _PATHS.name


def tls_programs(options: KernelOptions) -> Sequence[Program]:
    """Those of :data:`TLS` that these options need."""
    return [p for p in TLS if _routed(p, options)]


def programs(variant: str, options: KernelOptions, iterators: bool) -> Sequence[Program]:
    """All that stays loaded for a variant ("storage", "tracepoint", "kprobe")."""
    chosen = _VARIANTS[variant] + (_UDP if options.udp else ()) + _RETIRE
    chosen += _REQUESTS if options.requests else ()
    chosen += _DNS if options.requests else ()
    chosen += _TLS_LINKS if options.requests and options.tls else ()
    return [p for p in chosen if (iterators or p.hook != "iter") and _routed(p, options)]


def defines(
    variant: str, options: KernelOptions, iterators: bool, cmpxchg: bool, conntrack: bool = False
) -> list[str]:
    """Compiler flags that specialise ``bpf/weir.c``: what it does, not how much it holds (:func:`sizes`)."""
    routes = compile_routes(options.routes if options.requests else ())
    flags = {
        f"WEIR_{variant.upper()}": True,
        "WEIR_UDP": options.udp,
        "WEIR_REQUESTS": options.requests,
        "WEIR_TLS": options.requests and options.tls,
        "WEIR_REQUEST_PORTS": options.requests and options.opaque_ports + options.skip_ports,
        "WEIR_ROUTES": routes.steps,
        "WEIR_NAT": conntrack and options.nat != "off",
        "WEIR_ITERATORS": iterators,
        "WEIR_NO_CMPXCHG": not cmpxchg,
        "WEIR_BY_PROCESS": options.by_process,
        "WEIR_SCOPE_NETNS": options.netns,
        "WEIR_SCOPE_CGROUP": options.cgroups,
        "WEIR_SCOPE_PORT": options.ports,
    }
    # what HPACK's table has of paths (RFC 7541, appendix A)
    of = {"WEIR_ROUTE_ROOT": routes.of("/"), "WEIR_ROUTE_INDEX": routes.of("/index.html")}
    given = [f"-D{name}=1" for name, wanted in flags.items() if wanted]
    return given + [f"-D{name}={value}" for name, value in of.items() if routes.steps]


def sizes(options: KernelOptions) -> dict[str, int]:
    """Entries of each map of ``bpf/`` that has SIZED of them there."""
    of = options
    rows = dict.fromkeys(("requests", "request_rows", "free_requests"), of.requests)
    slots = dict.fromkeys(("slots", "edges", "free_slots"), of.slots)
    sessions = dict.fromkeys(("tls_talks", "tls_h2s"), of.tls)
    return rows | slots | sessions | {
        "conns": of.connections, "listeners": of.listeners, "folds": max(64, len(of.folds)),
        "dns_queries": _QUERIES, "nat": of.translated,
        "request_ports": len(of.opaque_ports + of.skip_ports),
        "route_steps": len(compile_routes(of.routes).steps),
        "scope_netns": len(of.netns), "scope_cgroup": len(of.cgroups), "scope_port": len(of.ports),
    }  # fmt: skip
