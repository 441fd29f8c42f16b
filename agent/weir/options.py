# SPDX-License-Identifier: Apache-2.0
"""Options that commands share; each is also a ``WEIR_…`` variable and a key of the YAML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from weir.config import Settings, read_yaml
from weir.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_KNOWN = (
    *(f.name for f in fields(Settings)), "log_level", "allow", "tls_cert_file", "tls_key_file", "prometheus",
    "window", "step",
)  # fmt: skip


def option(*names: str, **more: Any) -> Callable[[F], F]:
    """An option with its environment variable (``--max-series``: ``WEIR_MAX_SERIES``)."""
    long = next(n for n in names if n.startswith("--")).split("/")[0]
    variable = "WEIR_" + long[2:].replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **more)


def _use_config(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if path:
        options = {o.name: o for o in context.command.params}
        values = read_yaml(Path(path), _KNOWN)
        found = {n: _value(context, options[n], v, path) for n, v in values.items() if n in options}
        context.default_map = {**(context.default_map or {}), **found}


def _value(context: click.Context, option: click.Parameter, value: Any, path: str) -> Any:
    """A value from YAML as its option takes it; one that may repeat takes a list, or one value."""
    several = option.multiple and isinstance(value, list)
    items = value if several else [value]
    where = f"--config {path}: {str(option.name).replace('_', '-')}:"
    for item in items:
        yes_no = isinstance(item, bool) and not isinstance(option.type, click.types.BoolParamType)
        if item is None or isinstance(item, (dict, list)) or yes_no:
            form = "a value or a list of values" if option.multiple else "one value"
            raise ConfigError(f"{where} {form} is needed, not {item if yes_no else type(item).__name__}")
    try:
        done = [option.type.convert(item, option, context) for item in items]
    except click.BadParameter as error:
        raise ConfigError(f"{where} {error.message}") from None
    return done if option.multiple else done[0]


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _namespaces(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names under /run/netns."""
    folder = Path("/run/netns")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


config = click.option(
    "--config", type=str, is_eager=True, expose_value=False, callback=_use_config, envvar="WEIR_CONFIG",
    help="YAML file of settings (keys are the options' names).", metavar="FILE",
)  # fmt: skip
instance = option("--instance", default="host", show_default=True, metavar="NAME",
                    help="Pins and locks of its own, for a scoped run beside the host's agent.")  # fmt: skip
scope = stack(
    option("--netns", multiple=True, metavar="NS",
            help="Only this network namespace: name under /run/netns, path or inode. Repeats.",
            shell_complete=_namespaces),
    option("--cgroup", multiple=True, metavar="PATH", help="Only this cgroup v2 and below. Repeats."),
    option("--port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Only this service port. Repeats."),
)  # fmt: skip
kernel = stack(
    option("--tcp", type=click.Choice(["auto", "storage", "tracepoint", "kprobe"]), default="auto",
            show_default=True, help="How TCP is watched; see `weir check`."),
    option("--udp/--no-udp", default=True, show_default=True, help="Count UDP flows (cgroup_skb)."),
    option("--requests/--no-requests", default=True, show_default=True,
            help="Requests on TCP connections: count, status, duration (cgroup_skb)."),
    option("--request-rows", type=click.IntRange(64, 1 << 20), default=4096, show_default=True,
            help="Results of requests (edge, method, status) that the kernel can hold; each takes 3.4 kB."),
    option("--tls/--no-tls", default=False, show_default=True,
            help="Requests within TLS, by uprobes on OpenSSL, GnuTLS and Go in running processes; costs them"
            " a trap at each call."),
    option("--route", multiple=True, metavar="PATTERN",
            help="Tell HTTP requests apart by the first pattern that their path fits, as /users/{id} or"
            " /static/**. Repeats."),
    option("--opaque-port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Service port whose protocol is not looked at: its turns count as tcp. Repeats."),
    option("--skip-port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Service port without request metrics. Repeats."),
    option("--nat", type=click.Choice(["auto", "kprobe", "netfilter", "off"]), default="auto",
            show_default=True, help="How translated connections (services, masquerading) are learnt."),
    option("--slots", type=click.IntRange(64, 1 << 20), default=16384, show_default=True,
            help="Edges that the kernel can hold; each takes 1.8 kB of kernel memory."),
    option("--max-connections", type=click.IntRange(64, 16_000_000), default=1_000_000, show_default=True,
            help="Connections that are followed while they live; more are counted when they close."),
    option("--cidr", multiple=True, metavar="NAME=CIDR", help="Name a network of remote ends. Repeats."),
    option("--bpf-stats", is_flag=True,
            help="Measure the programs' run time (about 20 ns an event, for all BPF of the host)."),
)  # fmt: skip
cluster = stack(
    option("--kubernetes/--no-kubernetes", default=True, show_default=True,
            help="Ask the Kubernetes API for names, if it is told where or Weir runs in a pod."),
    option("--kubeconfig", default="", metavar="FILE", help="Cluster and credentials."),
    option("--kube-context", default="", metavar="NAME", help="Not the file's current context but this."),
    option("--api-server", default="", metavar="URL", help="Cluster without a kubeconfig, as https://HOST:6443."),
    option("--token-file", default="", metavar="FILE", help="With --api-server: bearer token; read again"
            " once a minute."),
    option("--ca-file", default="", metavar="FILE", help="With --api-server: who signed its certificate."),
    option("--node-name", default="", metavar="NAME", help="This host's name in the cluster.  [default: its"
            " host name]"),
    option("--external-label", default="", metavar="KEY=VALUE",
            help="Pods with this label count as external."),
)  # fmt: skip
aggregate = stack(
    option("--labels", multiple=True, metavar="LABEL", help="One more label: source_pod, destination_pod,"
            " source_address, destination_address, interface, process, or pod:NAME for a label of pods."
            " Repeats."),
    option("--services", type=click.Choice(["auto", "dialled", "endpoints"]), default="auto",
            show_default=True, help="destination_service: what was dialled, or of an address that nobody"
            " translated the one service whose endpoint it is; auto: the latter where a program rewrites"
            " addresses at connect(2)."),
    option("--max-series", type=click.IntRange(min=1000), default=100_000, show_default=True,
            help="Series of all pairs at most; more fold into one pair, and that is counted."),
    option("--idle", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS",
            help="Give an edge's slot back when nothing was counted for so long."),
)  # fmt: skip


class _Bytes(click.ParamType):  # type: ignore[type-arg]  # older clicks have none
    """A size as Kubernetes writes it: 134217728, 128Mi, 128M."""

    name = "bytes"
    _UNITS: Mapping[str, int] = {
        "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9
    }  # fmt: skip

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; a usage error for what is no size, or too small for any agent."""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", str(value).strip())
        if not found or found[2] not in self._UNITS:
            self.fail(f"{str(value)!r} is no size; write it as 128Mi, 128M or 134217728", param, ctx)
        size = int(float(found[1]) * self._UNITS[found[2]])
        if size and size < _LEAST:
            self.fail(f"{str(value)!r} is too little: at least {_LEAST // 2**20}Mi are needed", param, ctx)
        return size


#: An agent that watches nothing has about as much.
_LEAST = 48 * 2**20
caps = stack(
    option("--max-cpu", type=click.FloatRange(min=0, max=1024), default=0.0, show_default="no cap",
           metavar="CORES",
           help="CPU time a second (0.05: 5 % of one core) above which the agent does without what is"
           " optional: tap, then requests, then RTT, then three of four snapshots. It says so, and takes it"
           " up again when there is less to do."),
    option("--max-memory", type=_Bytes(), default=0, show_default="no cap", metavar="SIZE",
           help="Resident memory (128Mi) above which it does the same."),
)  # fmt: skip
interval = option("--interval", type=click.FloatRange(min=0.1, max=3600), default=5.0, show_default=True,
                    metavar="SECONDS", help="Time between two snapshots.")  # fmt: skip


def settings_of(values: dict[str, Any]) -> Settings:
    """Those of a command's options that are settings."""
    known = {f.name for f in fields(Settings)}
    chosen: dict[str, Any] = {
        k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items() if k in known
    }
    return Settings(**chosen)


def examples(*lines: str) -> str:
    """The end of a command's help: what to type, as typed."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


#: Where a view's rows come from.
source = stack(
    option("--agent", default="http://127.0.0.1:10435", show_default=True, metavar="URL",
           help="A running agent to read from; if there is none there, load alone."),
    click.option("--alone", is_flag=True, help="Load for this session only, whether an agent runs or not."),
)  # fmt: skip


def reading(what: str) -> Callable[[F], F]:
    """Where a view's rows come from, and which of them are shown."""
    return stack(
        source,
        click.option("--filter", "filter_text", default="", metavar="TEXT",
                     help="Words, key:value and !word; all must match."),
        click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help=what),
    )  # fmt: skip


#: What scripts read.
forms = stack(
    click.option("--json", "as_json", is_flag=True, help="One JSON object a reading."),
    click.option("--csv", "as_csv", is_flag=True, help="CSV (RFC 4180), one line a row."),
    click.option("--watch", is_flag=True, help="One reading after the other, every --interval seconds."),
)
