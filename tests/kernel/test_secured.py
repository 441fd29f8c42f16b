# SPDX-License-Identifier: Apache-2.0
"""An agent that asks who reads: a real Prometheus with certificate and password; root of the host."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import bcrypt
import pytest

from tests.kernel.agents import Agent, until, weir
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.test_prometheus import prometheus
from tests.unit.test_export_guard import issued
from weir.kernel.mounts import api_socket

_PASSWORD = "seven rivers"
_EVIL = 7999
#: For str.format twice: files and password, then the target.
_CONFIG = """\
global: {{{{scrape_interval: 1s, scrape_timeout: 1s}}}}
scrape_configs:
  - job_name: weir
    scheme: https
    tls_config: {{{{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}}}
    basic_auth: {{{{username: prometheus, password: {password}}}}}
    static_configs: [{{{{targets: ["{{target}}"]}}}}]
"""


@pytest.fixture
def secured(instance: str, netns: Netns, tmp_path: Path) -> Agent:
    """An agent that takes certificates of one authority and one password."""
    issued(tmp_path, "ca")
    for name in ("server", "client"):
        issued(tmp_path, name, "ca")
    users = f"{{prometheus: {bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(10)).decode()}}}"
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem,"
        f" client_auth_type: RequireAndVerifyClientCert}}\nbasic_auth_users: {users}\n"
    )
    return Agent(instance, (netns,), "--web-config", str(tmp_path / "web.yml"))


def test_a_prometheus_that_is_known(secured: Agent, netns: Netns, tmp_path: Path) -> None:
    """It reads; who has a certificate and no password does not, nor who has a password and no certificate."""
    with secured as agent:
        until(lambda: any("https://" in line for line in agent.log) or agent.process.poll() is not None)
        target = next(line for line in agent.log if "https://" in line).partition("https://")[2].split("/")[0]
        files = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
        config = _CONFIG.format(**files, password=_PASSWORD)
        with prometheus(tmp_path, target, config=config) as server, tcp_pair(netns, netns) as pair:
            until(lambda: server.query("up{job='weir'}") == {"": 1.0})
            pair.run("send", 1009)
            sent = f"sum by (reporter) (weir_tcp_sent_bytes_total{{destination_port='{pair.port}'}})"
            until(lambda: server.query(sent) == {"source": 1009, "destination": 1009})
            assert server.query(sent) == {"source": 1009, "destination": 1009}
            assert server.targets() == [("up", "")]
        for left_out, why in (("    basic_auth", "401"), ("    tls_config", "")):
            lines = [line for line in config.splitlines() if not line.startswith(left_out)]
            if not why:
                lines.append(f"    tls_config: {{{{ca_file: {files['ca']}}}}}")
            (tmp_path / left_out.strip()).mkdir()
            with prometheus(tmp_path / left_out.strip(), target, config="\n".join(lines)) as server:
                until(lambda server=server: dict(server.targets()).get("down"))  # type: ignore[misc]
                ((health, error),) = server.targets()
                assert health == "down"
                assert why in error


def test_root_of_the_host_needs_no_password(secured: Agent, instance: str, netns: Netns) -> None:
    """At the socket in the file system, which goes with the agent."""
    with secured as agent, tcp_pair(netns, netns) as pair:
        path = api_socket(instance)
        until(lambda: path.exists() or agent.process.poll() is not None)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        pair.run("send", 1009)
        time.sleep(0.5)
        told = weir("top", "--instance", instance, "--once", "--json", "--interval", "0")
        assert told.returncode == 0, told.stderr
        rows = [row for row in json.loads(told.stdout)["edges"] if row["port"] == pair.port]
        assert sorted(row["sent_bytes"] for row in rows) == [0, 1009], told.stdout
        assert agent.terminate() == 0
    assert not path.exists()


def test_a_name_that_would_be_a_metric(instance: str, netns: Netns, tmp_path: Path) -> None:
    """Any user may call a process what they like: it is a label's value and nothing else."""
    name = 'e"} 9\nup 7\n#'
    talk = f"""
import ctypes, socket
ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)
with socket.create_server(("127.0.0.1", {_EVIL})) as server:
    with socket.create_connection(("127.0.0.1", {_EVIL})) as one, server.accept()[0] as other:
        one.sendall(b"x" * 1009)
        input()
"""
    with (
        Agent(instance, (netns,), "--labels", "process").ready() as agent,
        prometheus(tmp_path, agent.url.removeprefix("http://")) as server,
        subprocess.Popen(["nsenter", f"--net={netns.path}", "--", sys.executable, "-c", talk],
                         stdin=subprocess.PIPE) as evil,
    ):  # fmt: skip
        sent = f"weir_tcp_sent_bytes_total{{destination_port='{_EVIL}'}}"
        until(lambda: server.query(sent).get("source") == 1009)
        assert server.query(sent)["source"] == 1009
        assert agent.page().label("weir_tcp_sent_bytes_total", "process", destination_port=_EVIL) == {name}
        assert server.query("up") == {"": 1.0}
        evil.communicate(b"\n")
