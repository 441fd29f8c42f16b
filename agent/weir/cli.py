# SPDX-License-Identifier: Apache-2.0
"""The command line: thin; every option is also a ``WEIR_…`` variable and a key of the YAML file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from weir.config import Settings, read_yaml
from weir.errors import ConfigError, LoadError, WeirError

F = TypeVar("F", bound=Callable[..., Any])

_KNOWN = (*(f.name for f in fields(Settings)), "log_level", "allow", "tls_cert_file", "tls_key_file")


def _option(*names: str, **more: Any) -> Callable[[F], F]:
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


def _stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_config = click.option(
    "--config", type=str, is_eager=True, expose_value=False, callback=_use_config, envvar="WEIR_CONFIG",
    help="YAML file of settings (keys are the options' names).", metavar="FILE",
)  # fmt: skip
_instance = _option("--instance", default="host", show_default=True, metavar="NAME",
                    help="Pins and locks of its own, for a scoped run beside the host's agent.")  # fmt: skip
_scope = _stack(
    _option("--netns", multiple=True, metavar="NS",
            help="Only this network namespace: name under /run/netns, path or inode. Repeats."),
    _option("--cgroup", multiple=True, metavar="PATH", help="Only this cgroup v2 and below. Repeats."),
    _option("--port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Only this service port. Repeats."),
)  # fmt: skip
_kernel = _stack(
    _option("--tcp", type=click.Choice(["auto", "storage", "tracepoint", "kprobe"]), default="auto",
            show_default=True, help="How TCP is watched; see `weir check`."),
    _option("--udp/--no-udp", default=True, show_default=True, help="Count UDP flows (cgroup_skb)."),
    _option("--requests/--no-requests", default=True, show_default=True,
            help="Requests on TCP connections: count, status, duration (cgroup_skb)."),
    _option("--request-rows", type=click.IntRange(64, 1 << 20), default=4096, show_default=True,
            help="Results of requests (edge, method, status) that the kernel can hold; each takes 3.4 kB."),
    _option("--tls/--no-tls", default=False, show_default=True,
            help="Requests within TLS, by uprobes on OpenSSL, GnuTLS and Go in running processes; costs them"
            " a trap at each call."),
    _option("--route", multiple=True, metavar="PATTERN",
            help="Tell HTTP requests apart by the first pattern that their path fits, as /users/{id} or"
            " /static/**. Repeats."),
    _option("--opaque-port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Service port whose protocol is not looked at: its turns count as tcp. Repeats."),
    _option("--skip-port", multiple=True, type=click.IntRange(1, 65535), metavar="PORT",
            help="Service port without request metrics. Repeats."),
    _option("--nat", type=click.Choice(["auto", "kprobe", "netfilter", "off"]), default="auto",
            show_default=True, help="How translated connections (services, masquerading) are learnt."),
    _option("--slots", type=click.IntRange(64, 1 << 20), default=16384, show_default=True,
            help="Edges that the kernel can hold; each takes 1.8 kB of kernel memory."),
    _option("--max-connections", type=click.IntRange(64, 16_000_000), default=1_000_000, show_default=True,
            help="Connections that are followed while they live; more are counted when they close."),
    _option("--cidr", multiple=True, metavar="NAME=CIDR", help="Name a network of remote ends. Repeats."),
    _option("--bpf-stats", is_flag=True,
            help="Measure the programs' run time (about 20 ns an event, for all BPF of the host)."),
)  # fmt: skip
_cluster = _stack(
    _option("--kubernetes/--no-kubernetes", default=True, show_default=True,
            help="Ask the Kubernetes API for names, if it is told where or Weir runs in a pod."),
    _option("--kubeconfig", default="", metavar="FILE", help="Cluster and credentials."),
    _option("--kube-context", default="", metavar="NAME", help="Not the file's current context but this."),
    _option("--api-server", default="", metavar="URL", help="Cluster without a kubeconfig, as https://HOST:6443."),
    _option("--token-file", default="", metavar="FILE", help="With --api-server: bearer token; read again"
            " once a minute."),
    _option("--ca-file", default="", metavar="FILE", help="With --api-server: who signed its certificate."),
    _option("--node-name", default="", metavar="NAME", help="This host's name in the cluster.  [default: its"
            " host name]"),
    _option("--external-label", default="", metavar="KEY=VALUE",
            help="Pods with this label count as external."),
)  # fmt: skip
_aggregate = _stack(
    _option("--labels", multiple=True, metavar="LABEL", help="One more label: source_pod, destination_pod,"
            " source_address, destination_address, interface, process, or pod:NAME for a label of pods."
            " Repeats."),
    _option("--services", type=click.Choice(["auto", "dialled", "endpoints"]), default="auto",
            show_default=True, help="destination_service: what was dialled, or of an address that nobody"
            " translated the one service whose endpoint it is; auto: the latter where a program rewrites"
            " addresses at connect(2)."),
    _option("--max-series", type=click.IntRange(min=1000), default=100_000, show_default=True,
            help="Series of all pairs at most; more fold into one pair, and that is counted."),
    _option("--idle", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS",
            help="Give an edge's slot back when nothing was counted for so long."),
)  # fmt: skip
_interval = _option("--interval", type=click.FloatRange(min=0.1, max=3600), default=5.0, show_default=True,
                    metavar="SECONDS", help="Time between two snapshots.")  # fmt: skip


def _settings(values: dict[str, Any]) -> Settings:
    known = {f.name for f in fields(Settings)}
    chosen: dict[str, Any] = {
        k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items() if k in known
    }
    return Settings(**chosen)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="weir-agent", prog_name="weir")
def cli() -> None:
    """Weir: what every TCP and UDP flow of this host does, counted inside the kernel."""


@cli.command()
@_config
@_option("--listen", default="127.0.0.1:10435", show_default=True, metavar="HOST:PORT", help="Serve here.")
@_option("--web-config", default="", metavar="FILE",
         help="TLS, client certificates and users, as in Prometheus's web configuration file.")  # fmt: skip
@_option("--kube-auth/--no-kube-auth", default=False, show_default=True,
         help="Readers show a bearer token of the cluster, whose API server says whether they may get the"
         " page (TokenReview, SubjectAccessReview).")  # fmt: skip
@_interval
@_instance
@_scope
@_kernel
@_aggregate
@_cluster
@_option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
         show_default=True, help="Log lines from this level up.")  # fmt: skip
def run(log_level: str, **values: Any) -> None:
    """The agent: load, watch, serve /metrics and the API until SIGTERM."""
    from weir.agent import serve

    serve(_settings(values), log_level)


@cli.command()
@_config
@_option("--agent", default="http://127.0.0.1:10435", show_default=True, metavar="URL",
         help="A running agent to read from; if there is none there, load alone.")  # fmt: skip
@click.option("--alone", is_flag=True, help="Load for this session only, whether an agent runs or not.")
@click.option("--connections/--pairs", "connections", default=False, help="Single connections or pairs.")
@click.option("--sort", default="rate", show_default=True, help="rate, total, latency or name.")
@click.option("--filter", "filter_text", default="", help="Words, key:value and !word; all must match.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True,
              help="Rows of --once.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once: JSON.")
@_option("--interval", type=click.FloatRange(min=0, max=60), default=1.0, show_default=True,
         metavar="SECONDS", help="Time between two readings (0 with --once: totals only).")  # fmt: skip
@_instance
@_scope
@_kernel
def top(**values: Any) -> None:
    """Live table of pairs and connections, of a running agent or alone."""
    from weir.session import show_top

    show_top(_settings(values), **{k: values[k] for k in (
        "agent", "alone", "connections", "sort", "filter_text", "limit", "once", "as_json")})  # fmt: skip


@cli.command()
@_config
@_option("--agent", default="http://127.0.0.1:10435", show_default=True, metavar="URL",
         help="A running agent to read from; if there is none there, load alone.")  # fmt: skip
@click.option("--alone", is_flag=True, help="Load for this session only, whether an agent runs or not.")
@click.option("--by", type=click.Choice(["workload", "pod", "process", "pair", "route"]), default="workload",
              show_default=True, help="What a line is of.")  # fmt: skip
@click.option("--sort", type=click.Choice(["requests", "failures", "latency", "name"]), default="requests",
              show_default=True, help="What comes first.")  # fmt: skip
@click.option("--filter", "filter_text", default="", help="Words, key:value and !word; all must match.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a table.")
@click.option("--watch", is_flag=True, help="One table after the other.")
@_option("--interval", type=click.FloatRange(min=0, max=3600), default=5.0, show_default=True,
         metavar="SECONDS", help="What happened in that time (0: since Weir looks).")  # fmt: skip
@_instance
@_scope
@_kernel
def stat(**values: Any) -> None:
    """Golden metrics of requests: success rate, requests/s, p50, p95, p99, bytes/s, RTT.

    Lines are of what an end serves (in: response times) and of what it calls (out: request latency).
    """
    from weir.session import show_stat

    if values["watch"] and not values["interval"]:
        raise click.UsageError("--watch needs an --interval of more than 0")
    show_stat(_settings(values), **{k: values[k] for k in (
        "agent", "alone", "by", "sort", "filter_text", "limit", "as_json", "watch")})  # fmt: skip


@cli.command()
@_config
@_option("--agent", default="http://127.0.0.1:10435", show_default=True, metavar="URL",
         help="A running agent to read from; if there is none there, load alone.")  # fmt: skip
@click.option("--alone", is_flag=True, help="Load for this session only, whether an agent runs or not.")
@click.option("--duration", type=click.FloatRange(min=1, max=86400), default=60.0, show_default=True,
              metavar="SECONDS", help="How long to watch.")  # fmt: skip
@click.option("--output", default="", metavar="FILE",
              help="Write this file, - for stdout.  [default: weir-report-HOST-TIME.html]")  # fmt: skip
@_instance
@_scope
@_kernel
def report(**values: Any) -> None:
    """One HTML file of what happens in some time: plots, map, table. For a ticket; it needs nothing else.

    It names hosts, workloads and networks, no addresses and no paths of requests (but for --route patterns).
    """
    from weir.session import show_report

    show_report(_settings(values), **{k: values[k] for k in ("agent", "alone", "duration", "output")})


@cli.command()
@_config
@_option("--agent", default="http://127.0.0.1:10435", show_default=True, metavar="URL",
         help="An agent of this host to take names from; if there is none there, load alone.")  # fmt: skip
@click.option("--alone", is_flag=True, help="Load for this session only, whether an agent runs or not.")
@click.option("--filter", "filter_text", default="", help="Words, key:value and !word, of the ends; all must"
              " match.")  # fmt: skip
@click.option("--failures", is_flag=True, help="Only requests that failed.")
@click.option("--rate", type=click.IntRange(1, 1000), default=100, show_default=True,
              help="Requests a second that are looked at; of more it is said how many.")  # fmt: skip
@click.option("--count", type=click.IntRange(0), default=0, show_default=True,
              help="End after so many (0: do not).")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="End after that time (0: do not).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_instance
@_scope
@_kernel
def tap(**values: Any) -> None:
    """Single requests as they end: who asked whom, method, path, status, how long.

    A sample, for root only, of this host, and to this terminal only: no port serves it. Of a request's text
    only the method and the path without its query are shown.
    """
    from weir.session import show_tap
    from weir.views.tap import Wanted

    wanted = Wanted(**{f.name: values[f.name] for f in fields(Wanted)})
    show_tap(_settings(values), agent=values["agent"], alone=values["alone"], wanted=wanted)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts and bug reports; holds nothing personal.")
@click.option("--load", "really", is_flag=True,
              help="Load every program under a name of its own, tell what the verifier says of each, and"
              " remove it all; counts nothing.")  # fmt: skip
def check(as_json: bool, really: bool) -> None:
    """What this host offers, what Weir will use, what is refused and why, what to mend.

    Exit code 0: Weir can run here; 1: it cannot.
    """
    from weir import check as checking
    from weir import log

    log.setup("error")  # what the loader would warn of is among the findings
    load = checking.loaded() if really else None
    rows, box = checking.findings(load)
    click.echo(json.dumps(checking.as_json(rows, box, load), indent=1) if as_json else checking.page(rows))
    sys.exit(any(r.fatal for r in rows))


@cli.command()
@_config
@_instance
@_scope
@_kernel
def load(**values: Any) -> None:
    """Pin the kernel side: it counts from now on, with or without an agent."""
    from weir import log, pipeline
    from weir.kernel import side

    log.setup("warning")
    settings = _settings(values)
    instance, cgroup2 = side.ready(settings.instance)
    with instance.lock("run"):
        pipeline.ensure_loaded(instance, settings, cgroup2)
    facts = instance.facts()
    click.echo(f"loaded: TCP by {facts['variant']}, {len(facts['verified'])} programs, under {instance.pins}")
    for plane, why in facts["planes"].items():
        if why:
            click.echo(f"down: {plane}: {why}")


@cli.command()
@_instance
def unload(instance: str) -> None:
    """Remove every trace of an instance from the kernel and the file systems."""
    from weir.pipeline import unload as remove

    click.echo("removed" if remove(instance) else "nothing was loaded")


@cli.command("kube-cache")
@_config
@_option("--listen", default="127.0.0.1:10436", show_default=True, metavar="HOST:PORT", help="Serve here.")
@_option("--tls-cert-file", default="", metavar="FILE", help="Serve HTTPS with this certificate (chain).")
@_option("--tls-key-file", default="", metavar="FILE", help="Its private key.")
@_option(
    "--allow",
    multiple=True,
    metavar="USER",
    help="Who may read, by token (TokenReview), as"
    " system:serviceaccount:weir:weir. Repeats.  [default: whoever reaches the port]",
)
@_option("--labels", multiple=True, metavar="pod:NAME", help="Labels of pods that agents need. Repeats.")
@_cluster
@_option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
         show_default=True, help="Log lines from this level up.")  # fmt: skip
def kube_cache(
    log_level: str, allow: tuple[str, ...], tls_cert_file: str, tls_key_file: str, **values: Any
) -> None:
    """Watch the Kubernetes API once, for the agents of a large cluster.

    Agents are told --api-server (and --ca-file, --token-file) of this cache; nothing else changes for them.
    """
    from weir.kubecache.start import start

    start(_settings(values), tuple(allow), (tls_cert_file, tls_key_file), log_level)


def main() -> None:
    """Entry point: one clear line for every error, never a traceback for what a user can mend."""
    try:
        cli.main(prog_name="weir", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context else ""
        _fail(error.format_message().replace("\n", " ") + where, 2)
    except LoadError as error:
        if error.log:
            click.echo(f"verifier, last lines of {error.program}:\n{error.log}", err=True)
        _fail(str(error), error.exit_code)
    except WeirError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)


def _fail(text: str, code: int) -> None:
    click.echo(f"weir: {text}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
