# SPDX-License-Identifier: Apache-2.0
"""Commands that look: top, stat, edges, report, tap. Thin, as the others are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from weir import options
from weir.options import examples, settings_of


def _chosen(values: dict[str, Any], *names: str, dot: bool = False) -> dict[str, Any]:
    """What a view is told: the form that was asked for, and ``names``."""
    from weir.views.forms import form_of

    form = form_of(as_json=values["as_json"], as_csv=values["as_csv"], as_dot=dot)
    if values.get("watch") and not values["interval"]:
        raise click.UsageError("--watch needs an --interval of more than 0")
    return {"form": form, **{name: values[name] for name in names}}


@click.command(
    epilog=examples(
        "weir top                                   # live, of the running agent or alone",
        "weir top --connections --sort latency      # single connections, the slowest first",
        "weir top --netns blue --filter port:5432   # one namespace, one service",
        "weir top --json --interval 0               # all totals, for a script",
        "weir top --csv --watch --interval 10       # one line a pair, every 10 s",
    )
)
@options.config
@options.reading("Rows, where it is not live.")
@click.option("--connections/--pairs", "connections", default=False, help="Single connections or pairs.")
@click.option("--sort", type=click.Choice(["rate", "total", "latency", "name"]), default="rate",
              show_default=True, help="What comes first.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one table and end; --json and --csv do so too.")
@options.forms
@options.option("--interval", type=click.FloatRange(min=0, max=60), default=1.0, show_default=True,
                metavar="SECONDS", help="Time between two readings (0: one, totals only).")  # fmt: skip
@options.instance
@options.scope
@options.kernel
def top(**values: Any) -> None:
    """Live table of pairs and connections, of a running agent or alone."""
    from weir.session import show_top

    chosen = _chosen(values, "agent", "alone", "connections", "sort", "filter_text", "limit", "once", "watch")
    show_top(settings_of(values), **chosen)


@click.command(
    epilog=examples(
        "weir stat                                  # by workload, over the next 5 s",
        "weir stat --by pair --sort failures        # who fails whom",
        "weir stat --by route --route '/users/{id}' # HTTP by pattern of the path",
        "weir stat --watch --json                   # one object every 5 s",
    )
)
@options.config
@options.reading("Lines.")
@click.option("--by", type=click.Choice(["workload", "pod", "process", "pair", "route"]), default="workload",
              show_default=True, help="What a line is of.")  # fmt: skip
@click.option("--sort", type=click.Choice(["requests", "failures", "latency", "name"]), default="requests",
              show_default=True, help="What comes first.")  # fmt: skip
@options.forms
@options.option("--interval", type=click.FloatRange(min=0, max=3600), default=5.0, show_default=True,
                metavar="SECONDS", help="What happened in that time (0: since Weir looks).")  # fmt: skip
@options.instance
@options.scope
@options.kernel
def stat(**values: Any) -> None:
    """Golden metrics of requests: success rate, requests/s, p50, p95, p99, bytes/s, RTT.

    Lines are of what an end serves (in: response times) and of what it calls (out: request latency).
    """
    from weir.session import show_stat

    chosen = _chosen(values, "agent", "alone", "by", "sort", "filter_text", "limit", "watch")
    show_stat(settings_of(values), **chosen)


@click.command(
    epilog=examples(
        "weir edges                                 # who talks to whom, over the next 5 s",
        "weir edges --interval 0 --sort failures    # since Weir looks, what fails first",
        "weir edges --dot | dot -Tsvg >map.svg      # a drawing, by Graphviz",
        "weir edges --csv --filter namespace:shop   # for a spreadsheet",
    )
)
@options.config
@options.reading("Lines.")
@click.option("--sort", type=click.Choice(["traffic", "requests", "failures", "latency", "name"]),
              default="traffic", show_default=True, help="What comes first.")  # fmt: skip
@options.forms
@click.option("--dot", "as_dot", is_flag=True, help="A graph in Graphviz's language.")
@options.option("--interval", type=click.FloatRange(min=0, max=3600), default=5.0, show_default=True,
                metavar="SECONDS", help="What happened in that time (0: since Weir looks).")  # fmt: skip
@options.instance
@options.scope
@options.kernel
def edges(**values: Any) -> None:
    """Who talks to whom, workload by workload: traffic, requests, success, latency.

    A pair that both of its ends report is one line, as the source saw it.
    """
    from weir.session import show_edges

    chosen = _chosen(values, "agent", "alone", "sort", "filter_text", "limit", "watch", dot=values["as_dot"])
    show_edges(settings_of(values), **chosen)


@click.command(
    epilog=examples(
        "weir report                                  # a minute of this host, in a file named after it",
        "weir report --duration 600 --output t.html   # ten minutes",
        "weir report --output - | gzip >report.gz",
    )
)
@options.config
@options.source
@click.option("--duration", type=click.FloatRange(min=1, max=86400), default=60.0, show_default=True,
              metavar="SECONDS", help="How long to watch.")  # fmt: skip
@click.option("--output", default="", metavar="FILE",
              help="Write this file, - for stdout.  [default: weir-report-HOST-TIME.html]")  # fmt: skip
@options.instance
@options.scope
@options.kernel
def report(**values: Any) -> None:
    """One HTML file of what happens in some time: plots, map, table. For a ticket; it needs nothing else.

    It names hosts, workloads and networks, no addresses and no paths of requests (but for --route patterns).
    """
    from weir.session import show_report

    show_report(settings_of(values), **{k: values[k] for k in ("agent", "alone", "duration", "output")})


@click.command(
    epilog=examples(
        "weir tap                                     # a hundred requests a second at most",
        "weir tap --failures --count 20               # the next twenty that fail",
        "weir tap --filter workload:nginx --json",
    )
)
@options.config
@options.source
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
@click.option("--csv", "as_csv", is_flag=True, help="CSV (RFC 4180), one line a request.")
@options.instance
@options.scope
@options.kernel
def tap(**values: Any) -> None:
    """Single requests as they end: who asked whom, method, path, status, how long.

    A sample, for root only, of this host, and to this terminal only: no port serves it. Of a request's text
    only the method and the path without its query are shown.
    """
    from weir.session import show_tap
    from weir.views.tap import Wanted

    form = _chosen(values)["form"]
    wanted = Wanted(**{f.name: values[f.name] for f in fields(Wanted) if f.name != "form"}, form=form)
    show_tap(settings_of(values), agent=values["agent"], alone=values["alone"], wanted=wanted)


COMMANDS = (top, stat, edges, report, tap)
