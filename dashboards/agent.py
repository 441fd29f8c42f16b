# SPDX-License-Identifier: Apache-2.0
"""Weir itself: what it lost, what it could not name, what it had to fold, what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import NO_RULES, NONE, VERMILLION, Column, Query
from dashboards.promql import rate, series, total
from weir.kernel.layout import LOSSES

_ON = 'instance=~"$instance"'
_NAME = "{{instance}}"
_NEVER = "nothing of this kind has happened"
_LOST = "|".join(LOSSES)
_NO_API = "agents without the Kubernetes API"
_NO_STATS = "needs the agents' option --bpf-stats"


def _health() -> list[object]:
    unnamed = total(rate("weir_agent_unattributed_bytes_total", _ON), "end")
    every = total(f"agent:weir_bytes:rate5m{{{_ON}}}")
    lost = rate("weir_agent_kernel_events_total", _ON, f'event=~"{_LOST}"')
    return [
        panels.number("Agents", "That answer.", Query(f"count({series('weir_agent_build_info', _ON)})")),
        panels.number(
            "Oldest snapshot",
            "Of all agents; a few intervals old is late.",
            Query(f"max({series('weir_agent_snapshot_age_seconds', _ON)})"),
            unit="s",
            steps=((None, panels.BLUE), (30, VERMILLION)),
        ),
        panels.number(
            "Not counted",
            "Events per second by which something is missing from the figures or has lost its "
            "owner; connections that cannot be parsed are in it.",
            Query(f"sum({lost})"),
            unit="cps",
            steps=NONE,
        ),
        panels.number(
            "Without a name",
            "Share of the bytes that agents counted, of the end (local or remote) that lacks more names.",
            Query(f"max({unnamed}) / {every}"),
            unit="percentunit",
            decimals=2,
            no_value=NO_RULES,
        ),
        panels.number(
            "Series folded",
            "Series that the budget had no room for; their pairs count under `other`.",
            Query(f"sum({series('weir_agent_series_folded', _ON)})"),
            steps=NONE,
        ),
        panels.number(
            "Planes down",
            "Parts of the kernel side that do not work somewhere; `weir check` there says why.",
            Query(f"sum(1 - {series('weir_agent_plane_up', _ON)})"),
            steps=NONE,
        ),
    ]


def _losses() -> list[object]:
    fill = (
        f"max by (map) ({series('weir_agent_map_entries', _ON)} / {series('weir_agent_map_capacity', _ON)})"
    )
    events = total(rate("weir_agent_kernel_events_total", _ON), "event")
    unnamed = total(rate("weir_agent_unattributed_bytes_total", _ON), "instance", "end")
    return [
        panels.lines(
            "What the kernel side could not do",
            "By event; docs/metrics.md and docs/requests.md tell what each one means.",
            Query(f"{events} > 0", "{{event}}", empty=_NEVER),
            unit="cps",
        ),
        panels.lines(
            "Bytes under `overflow`",
            "Of edges that found no slot in the kernel: raise `--slots`.",
            Query(total(rate("weir_agent_overflow_bytes_total", _ON), "instance"), _NAME),
            unit="Bps",
        ),
        panels.lines(
            "Bytes without a name",
            "Whose local or remote end had no name when they were counted.",
            Query(unnamed, "{{instance}} {{end}}"),
            unit="Bps",
        ),
        panels.bars(
            "Maps, how full",
            "The fullest of all agents. Above 90 % an alert fires, before anything is lost.",
            Query(fill, "{{map}}", instant=True),
            unit="percentunit",
            top=1,
            steps=((None, panels.BLUE), (0.75, panels.ORANGE), (0.9, VERMILLION)),
        ),
        panels.lines(
            "Series",
            "In each agent's snapshot. `--max-series` is their bound.",
            Query(series("weir_agent_series", _ON), _NAME),
        ),
        panels.lines(
            "Caches that pushed entries out, labels that were cut",
            "Per second; what went over a bound.",
            Query(total(rate("weir_agent_cache_evictions_total", _ON), "cache"), "{{cache}}", empty=_NEVER),
            Query(total(rate("weir_agent_labels_truncated_total", _ON)), "labels cut"),
            unit="cps",
        ),
    ]


def _cost() -> list[object]:
    took = rate("weir_agent_stage_duration_seconds", _ON, suffix="_sum")
    times = rate("weir_agent_stage_duration_seconds", _ON, suffix="_count")
    spent = total(rate("weir_agent_bpf_run_seconds_total", _ON), "program")
    runs = total(rate("weir_agent_bpf_runs_total", _ON), "program")
    return [
        panels.lines(
            "CPU of the agents",
            "Of one core each; what runs in the kernel is beside.",
            Query(rate("process_cpu_seconds_total", _ON), _NAME),
            unit="percentunit",
        ),
        panels.lines(
            "Memory of the agents",
            "Resident.",
            Query(series("process_resident_memory_bytes", _ON), _NAME),
            unit="bytes",
        ),
        panels.lines(
            "Planes that agents do without",
            "Over `--max-cpu` or `--max-memory`: tap, then requests, then RTT, then three of four snapshots.",
            Query(f"{total(series('weir_agent_shed', _ON), 'plane')} > 0", "{{plane}}", empty=_NEVER),
            unit="short",
        ),
        panels.lines(
            "Stages",
            "Mean duration of each stage of a drain, the slowest agent's.",
            Query(f"max by (stage) ({took} / {times})", "{{stage}}"),
            unit="s",
        ),
        panels.lines(
            "CPU of the kernel side",
            "By program.",
            Query(f"{spent} > 0", "{{program}}", empty=_NO_STATS),
            unit="percentunit",
            no_value=f"no data ({_NO_STATS})",
        ),
        panels.lines(
            "Time of one run",
            "By program, as above.",
            Query(f"({spent}) / ({runs} > 0)", "{{program}}", empty=_NO_STATS),
            unit="s",
            no_value=f"no data ({_NO_STATS})",
        ),
        panels.lines(
            "Runs that the kernel left out",
            "Because the same program was running already: by program.",
            Query(
                total(rate("weir_agent_bpf_recursion_misses_total", _ON), "program") + " > 0",
                "{{program}}",
                empty=_NEVER,
            ),
            unit="cps",
            no_value="none",
        ),
    ]


def _outside() -> list[object]:
    objects = f"max by (kind) ({series('weir_agent_kubernetes_objects', _ON)})"
    heard = f"max by (resource) ({series('weir_agent_kubernetes_age_seconds', _ON)})"
    events = total(rate("weir_agent_kubernetes_events_total", _ON), "resource", "event")
    keys = [(label, label) for label in ("instance", "version")]
    since = f"time() - {series('weir_agent_counters_start_time_seconds', _ON)}"
    labels = "sum by (instance, version) "
    return [
        panels.lines(
            "Kubernetes: since it was last heard of",
            "By resource, the worst agent's. Names may be as old.",
            Query(heard, "{{resource}}", empty=_NO_API),
            unit="s",
            width=6,
        ),
        panels.lines(
            "Kubernetes: what came of asking",
            "Lists, events and everything that went wrong.",
            Query(events, "{{resource}} {{event}}", empty=_NO_API),
            unit="cps",
            width=6,
        ),
        panels.lines(
            "Kubernetes: objects in the index",
            "The largest agent's.",
            Query(objects, "{{kind}}", empty=_NO_API),
            width=6,
        ),
        panels.lines(
            "Refused and failed",
            "Requests that the agents' server refused, errors that a stage survived.",
            Query(
                total(rate("weir_agent_http_refused_total", _ON), "reason"),
                "refused: {{reason}}",
                empty=_NEVER,
            ),
            Query(total(rate("weir_agent_errors_total", _ON), "stage"), "error: {{stage}}", empty=_NEVER),
            unit="cps",
            width=6,
        ),
        panels.rows(
            "Agents",
            "Which version runs where.",
            keys,
            [Column("up", f"{labels}({series('weir_agent_build_info', _ON)})", "short")],
            width=12,
            height=8,
            order="instance",
        ),
        panels.rows(
            "Counting since",
            "How long the kernel side of each has counted; agents that come later go on with it.",
            [("instance", "instance")],
            [Column("Since", f"sum by (instance) ({since})", "s")],
            width=6,
            height=8,
        ),
        panels.rows(
            "TLS",
            "Files (programs, libraries) whose TLS is read, by library; needs `--tls`.",
            [("library", "library")],
            [
                Column(
                    "Files",
                    total(series("weir_agent_tls_files", _ON), "library"),
                    "short",
                    empty="agents without --tls",
                )
            ],
            width=6,
            height=8,
        ),
    ]


def made() -> builders.Dashboard:
    """Whether the figures can be trusted."""
    board = boards.board(
        "agent", "Weir itself", "Whether the figures can be trusted: losses, names, budgets, cost."
    )
    board.with_variable(
        boards.choice("instance", "Agent", "label_values(weir_agent_build_info, instance)", many=True)
    )
    return boards.filled(
        board,
        ("Can the figures be trusted?", _health()),
        ("What was lost or folded", _losses()),
        ("What it costs", _cost()),
        ("What it depends on", _outside()),
    )
