# SPDX-License-Identifier: Apache-2.0
"""The command line: thin; every option is also a ``WEIR_…`` variable and a key of the YAML file."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

from weir import options
from weir.errors import LoadError, WeirError, unexpected
from weir.options import examples, settings_of
from weir.viewing import COMMANDS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="weir-agent", prog_name="weir")
def cli() -> None:
    """Weir: what every TCP and UDP flow of this host does, counted inside the kernel."""


@cli.command(
    epilog=examples(
        "weir run                                     # this host; metrics at http://127.0.0.1:10435/metrics",
        "weir run --netns blue --instance blue        # one namespace, beside the host's own agent",
        "weir run --listen :10435 --web-config w.yml  # for other hosts, by TLS and password",
        "weir run --kubeconfig ~/.kube/config         # with the names of a cluster",
    )
)
@options.config
@options.option(
    "--listen", default="127.0.0.1:10435", show_default=True, metavar="HOST:PORT", help="Serve here."
)
@options.option("--web-config", default="", metavar="FILE",
         help="TLS, client certificates and users, as in Prometheus's web configuration file.")  # fmt: skip
@options.option("--kube-auth/--no-kube-auth", default=False, show_default=True,
         help="Readers show a bearer token of the cluster, whose API server says whether they may get the"
         " page (TokenReview, SubjectAccessReview).")  # fmt: skip
@options.interval
@options.instance
@options.scope
@options.kernel
@options.aggregate
@options.caps
@options.cluster
@options.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
         show_default=True, help="Log lines from this level up.")  # fmt: skip
def run(log_level: str, **values: Any) -> None:
    """The agent: load, watch, serve /metrics and the API until SIGTERM."""
    from weir.agent import serve

    serve(settings_of(values), log_level)


@cli.command(
    epilog=examples(
        "weir check",
        "weir check --load --json                     # for a bug report: what the verifier says too",
    )
)
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


@cli.command(
    epilog=examples(
        "weir load                                    # counts from now on, without an agent",
        "weir load --instance web --cgroup /sys/fs/cgroup/system.slice/nginx.service",
    )
)
@options.config
@options.instance
@options.scope
@options.kernel
def load(**values: Any) -> None:
    """Pin the kernel side: it counts from now on, with or without an agent."""
    from weir import log, pipeline
    from weir.kernel import side

    log.setup("warning")
    settings = settings_of(values)
    instance, cgroup2 = side.ready(settings.instance)
    with instance.lock("run"):
        pipeline.ensure_loaded(instance, settings, cgroup2)
    facts = instance.facts()
    click.echo(f"loaded: TCP by {facts['variant']}, {len(facts['verified'])} programs, under {instance.pins}")
    for plane, why in facts["planes"].items():
        if why:
            click.echo(f"down: {plane}: {why}")


@cli.command(epilog=examples("weir unload", "weir unload --instance web"))
@options.instance
def unload(instance: str) -> None:
    """Remove every trace of an instance from the kernel and the file systems."""
    from weir.pipeline import unload as remove

    click.echo("removed" if remove(instance) else "nothing was loaded")


@cli.command(
    "map",
    epilog=examples(
        "weir map --prometheus http://prometheus.monitoring:9090",
        "weir map --prometheus https://prometheus.example --ca-file ca.pem --token-file token",
    ),
)
@options.config
@options.option("--prometheus", required=True, metavar="URL", help="A Prometheus that scrapes the agents.")
@options.option("--listen", default="127.0.0.1:10437", show_default=True, metavar="HOST:PORT",
                help="Serve here.")  # fmt: skip
@options.option("--web-config", default="", metavar="FILE",
                help="TLS, client certificates and users, as of `weir run`.")  # fmt: skip
@options.option("--token-file", default="", metavar="FILE", help="Bearer token for Prometheus.")
@options.option("--ca-file", default="", metavar="FILE", help="Who signed its certificate.")
@options.option("--window", type=click.FloatRange(min=2, max=3600), default=120.0, show_default=True,
                metavar="SECONDS", help="What rates look back: four scrape intervals or more.")  # fmt: skip
@options.option("--step", type=click.FloatRange(min=1, max=3600), default=15.0, show_default=True,
                metavar="SECONDS", help="How often it is asked, while somebody looks.")  # fmt: skip
@options.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
                show_default=True, help="Log lines from this level up.")  # fmt: skip
def map_(**values: Any) -> None:
    """The map page for a whole cluster, from Prometheus.

    It needs no privileges, and asks only while a browser shows the page.
    """
    from weir.clustermap.client import Where
    from weir.clustermap.start import start

    where = Where(values["prometheus"], values["token_file"], values["ca_file"])
    start(where, *(values[name] for name in ("listen", "web_config", "window", "step", "log_level")))


@cli.command(
    "kube-cache",
    epilog=examples(
        "weir kube-cache                              # for agents of this host; see docs/scale.md",
        "weir kube-cache --listen :10436 --tls-cert-file c.pem --tls-key-file k.pem",
    ),
)
@options.config
@options.option(
    "--listen", default="127.0.0.1:10436", show_default=True, metavar="HOST:PORT", help="Serve here."
)
@options.option(
    "--tls-cert-file", default="", metavar="FILE", help="Serve HTTPS with this certificate (chain)."
)
@options.option("--tls-key-file", default="", metavar="FILE", help="Its private key.")
@options.option(
    "--allow",
    multiple=True,
    metavar="USER",
    help="Who may read, by token (TokenReview), as"
    " system:serviceaccount:weir:weir. Repeats.  [default: whoever reaches the port]",
)
@options.option(
    "--labels", multiple=True, metavar="pod:NAME", help="Labels of pods that agents need. Repeats."
)
@options.cluster
@options.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
         show_default=True, help="Log lines from this level up.")  # fmt: skip
def kube_cache(
    log_level: str, allow: tuple[str, ...], tls_cert_file: str, tls_key_file: str, **values: Any
) -> None:
    """Watch the Kubernetes API once, for the agents of a large cluster.

    Agents are told --api-server (and --ca-file, --token-file) of this cache; nothing else changes for them.
    """
    from weir.kubecache.start import start

    start(settings_of(values), tuple(allow), (tls_cert_file, tls_key_file), log_level)


@cli.command(
    epilog=examples(
        "weir completion bash >/etc/bash_completion.d/weir",
        "weir completion zsh >/usr/local/share/zsh/site-functions/_weir",
        "weir completion fish >~/.config/fish/completions/weir.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """What a shell needs to complete commands, options and their values."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "weir", "_WEIR_COMPLETE").source())


for _command in COMMANDS:
    cli.add_command(_command)


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
    except (OSError, MemoryError, RuntimeError) as error:
        if (line := unexpected(error)) is None:
            raise
        _fail(line, WeirError.exit_code)


def _fail(text: str, code: int) -> None:
    click.echo(f"weir: {text}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
