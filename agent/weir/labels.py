# SPDX-License-Identifier: Apache-2.0
"""Names of the labels of pairs and of their requests, what they mean, and which ones a user may add."""

from __future__ import annotations

import re
from collections.abc import Iterable

from weir.errors import ConfigError

#: Labels of a pair, in the order of every label tuple; EXTRA_LABELS follow in the order of the request.
PAIR_LABELS = (
    "reporter",
    "source_namespace",
    "source_workload",
    "destination_namespace",
    "destination_workload",
    "destination_service",
    "destination_port",
    "network_name",
    "attribution",
)
EXTRA_LABELS = {
    "source_pod": "pod of the source",
    "destination_pod": "pod of the destination",
    "source_address": "address of the source, or the network it was folded into",
    "destination_address": "address of the destination, or the network it was folded into",
    "interface": "interface of the pod that reports, as its network status tells",
    "process": "process name at the end that reports",
}
LABEL_HELP = {
    "reporter": "`source` or `destination`: which end this node saw",
    "source_namespace": "namespace of the end that opened the connection",
    "source_workload": "what made the pod (Deployment, …), else container, systemd unit, process",
    "destination_namespace": "namespace of the end that was called",
    "destination_workload": "as source_workload; `external` when not known",
    "destination_service": "service that was called, where it was called by an address of its own",
    "destination_port": "port that was called",
    "network_name": "secondary network, empty for the default one",
    "attribution": "how the far end was named: `cgroup`, `netns`, `address`, `node` or `none`; "
    "`none` too when the near end has no name",
}

#: Labels of requests besides the pair's, and of their durations.
REQUEST_LABELS = ("protocol", "method", "status", "outcome")
DURATION_LABELS = ("protocol", "method", "outcome")
REQUEST_LABEL_HELP = {
    "protocol": "`http` (1.0 and 1.1); `http2`; `grpc`; `dns`; `redis`; `postgresql`; `mysql`;"
    " `tcp`: a protocol that Weir does not parse, where a request is a turn of the conversation",
    "method": "as the protocol names it (of DNS the type, of databases the kind of statement), `_OTHER` for"
    " one that is not among the usual ones; empty for `grpc` and `tcp`",
    "status": "as the protocol writes it (`200`, `NXDOMAIN`, gRPC's code by name); empty where there was no"
    " answer, and for `tcp`",
    "outcome": "`success`; `failure`: a status of 500 or more, a code that is the server's fault, an error of"
    " a database, or no answer; `unknown` for `tcp`, and where a status was told by reference to what was"
    " before",
}

#: One more of both, where patterns of paths are configured.
ROUTE_LABEL = "route"
REQUEST_LABEL_HELP[ROUTE_LABEL] = (
    "only with `--route`: the first of its patterns that the path of an HTTP request fits; empty where none"
    " does, and of other protocols"
)

#: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_POD_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def check_labels(extra: Iterable[str]) -> tuple[str, ...]:
    """Names of the extra labels that were asked for. ConfigError, one line, for one that cannot be.

    ``pod:NAME`` asks for a label of the pods at both ends: ``source_label_NAME``, ``destination_label_NAME``
    (every character that Prometheus does not allow is ``_``, as kube-state-metrics has it).
    """
    return tuple(label_sources(extra))


def label_sources(extra: Iterable[str]) -> dict[str, str]:
    """Extra labels' names, and the pod label each is taken from ("" for those of EXTRA_LABELS)."""
    chosen: dict[str, str] = {}
    for label in extra:
        source = label.removeprefix("pod:")
        if source == label and label not in EXTRA_LABELS:
            known = f"{', '.join(EXTRA_LABELS)}, or pod:NAME for a label of pods"
            raise ConfigError(f"--labels: {label!r} is not a label; choose from {known}")
        if source != label and not _POD_LABEL.fullmatch(source):
            raise ConfigError(f"--labels: {label!r}: {source!r} cannot be a label of a pod")
        clean = re.sub(r"[^a-zA-Z0-9_]", "_", source)
        names = [label] if source == label else [f"source_label_{clean}", f"destination_label_{clean}"]
        for name in names:
            if name in chosen:
                raise ConfigError(f"--labels: {label!r} is there twice")
            chosen[name] = "" if source == label else source
    return chosen
