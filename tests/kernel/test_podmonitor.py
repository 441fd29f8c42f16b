# SPDX-License-Identifier: Apache-2.0
"""What the Prometheus Operator makes of the PodMonitor: the labels of the agents' own metrics stay theirs."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kernel.agents import ROOT, until
from tests.kernel.test_prometheus import prometheus

MONITORS = {
    "overlay": ROOT / "daemonset/overlays/prometheus-operator/podmonitor.yaml",
    "chart": ROOT / "daemonset/chart/weir/templates/podmonitor.yaml",
}
_PAGE = b"""\
weir_sriov_vf_info{pf="ens1",vf="0",namespace="shop",pod="dpdk-0"} 1
weir_sriov_vf_info{pf="ens1",vf="1",namespace="",pod=""} 1
weir_agent_edges 7
"""


@pytest.fixture
def exposed() -> Iterator[str]:
    """A page as of an agent on a host with SR-IOV, which there is not here."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(_PAGE)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def relabelings(path: Path) -> list[dict[str, Any]]:
    """Of its one endpoint, as Prometheus' own configuration has them."""
    text = re.sub(r"{{.*?}}", "", path.read_text())
    (endpoint,) = yaml.safe_load(text)["spec"]["podMetricsEndpoints"]
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{names.get(key, key): value for key, value in rule.items()} for rule in endpoint["relabelings"]]


@pytest.mark.parametrize("kind", MONITORS)
def test_labels_stay_whose_they_are(exposed: str, kind: str, tmp_path: Path) -> None:
    """The operator gives each target a namespace, a pod and a container; those of a VF are of who has it."""
    target = {"__meta_kubernetes_pod_node_name": "node-a", "namespace": "weir", "pod": "weir-x7k2p",
              "container": "agent", "endpoint": "metrics"}  # fmt: skip
    job = {"job_name": "weir", "scrape_interval": "1s", "relabel_configs": relabelings(MONITORS[kind]),
           "static_configs": [{"targets": [exposed], "labels": target}]}  # fmt: skip
    config = json.dumps({"scrape_configs": [job]}).replace("{", "{{").replace("}", "}}")
    with prometheus(tmp_path, exposed, config=config) as server:
        until(lambda: bool(server._get("query", query="weir_agent_edges")["result"]))
        found = server._get("query", query="weir_sriov_vf_info")["result"]
    metrics = [row["metric"] for row in found]
    owners = {labels["vf"]: (labels.get("namespace"), labels.get("pod")) for labels in metrics}
    assert owners == {"0": ("shop", "dpdk-0"), "1": (None, None)}
    assert {labels["node"] for labels in metrics} == {"node-a"}
    assert not [name for labels in metrics for name in labels if name.startswith("exported_")]
