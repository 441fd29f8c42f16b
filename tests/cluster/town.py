# SPDX-License-Identifier: Apache-2.0
"""A small town of real programs in pods on two nodes, which talk all the time and in every way.

web asks api (nginx; every fourth answer a 503), resolves names at dns (dnsmasq), sends files to store over a
secondary network and asks for some, has a conversation with echo that nobody parses, and knocks
at a port where nobody is; api asks cache (redis), sometimes what redis does not know.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.cluster import objects
from tests.cluster.nodes import Cluster, Pod
from tests.kernel.agents import until
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http_servers import needed

_NGINX = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fast; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{ listen 80; location / {{ return 200 hello; }} location /down {{ return 503 down; }} }}
}}"""
_WEB = """
while :; do
  curl -s -o /dev/null {api}/a {api}/b {api}/c {api}/down
  curl -s -o /dev/null {store}/a
  curl -s -o /dev/null --max-time 1 {cache}:9
  dig +short +tries=1 +time=1 @{dns} a.test >/dev/null
  sleep 0.3
done"""
_API = "while :; do redis-cli -h {cache} set a b; redis-cli -h {cache} incr a; sleep 0.5; done >/dev/null"
_ECHO = """
import socket, sys
with socket.create_server(("", 700)) as server:
    while True:
        talk, _ = server.accept()
        while data := talk.recv(4096):
            talk.sendall(data[::-1])
"""
_TALK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 700)) as talk:
    while True:
        talk.sendall(b"hello there")
        talk.recv(4096)
        time.sleep(0.2)
"""
_SINK = """
import socket
with socket.create_server(("", 800)) as server:
    while True:
        talk, _ = server.accept()
        while talk.recv(65536):
            pass
"""
_SEND = """
import socket, sys, time
while True:
    with socket.create_connection((sys.argv[1], 800)) as talk:
        for _ in range(10):
            talk.sendall(bytes(100_000))
            time.sleep(0.1)
"""


class Town:
    """Its pods by name, and the namespaces of each node."""

    def __init__(self, stack: ExitStack, cluster: Cluster, home: Path) -> None:
        needed("nginx", "redis-server", "dnsmasq", "curl", "dig")
        self._stack = stack
        self.nodes = (cluster.node("node-a"), cluster.node("node-b"))
        near, far = self.nodes
        storage = ("storage", "10.77.0.1"), ("storage", "10.77.0.2")
        self.web = near.pod("web-5d4f-x2x4z", objects.owner("ReplicaSet", "web-5d4f"), networks=[storage[0]],
                            labels={"pod-template-hash": "5d4f"})  # fmt: skip
        self.api = far.pod("api-0", objects.owner("StatefulSet", "api"))
        self.cache = near.pod("cache-0", objects.owner("StatefulSet", "cache"))
        self.dns = far.pod("dns-7hj2k", objects.owner("DaemonSet", "dns"), namespace="test")
        self.echo = far.pod("echo-0", objects.owner("StatefulSet", "echo"))
        self.store = far.pod("store-0", objects.owner("StatefulSet", "store"), networks=[storage[1]])
        self.here: tuple[Netns, ...] = (self.web.netns, self.cache.netns)
        self.there: tuple[Netns, ...] = tuple(p.netns for p in (self.api, self.dns, self.echo, self.store))
        self._work(home)

    def _work(self, home: Path) -> None:
        for pod in (self.api, self.store):
            own = home / pod.name
            own.mkdir()
            (own / "nginx.conf").write_text(_NGINX.format(home=own))
            self._serve(pod, 80, "nginx", "-c", str(own / "nginx.conf"), "-e", str(own / "error.log"))
        self._serve(self.cache, 6379, "redis-server", "--save", "", "--protected-mode", "no")
        self._serve(self.dns, 53, "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts",
                    "--conf-file", "--local=/test/", "--host-record=a.test,10.0.0.1", "--user=root",
                    "--pid-file")  # fmt: skip
        self._serve(self.echo, 700, sys.executable, "-c", _ECHO)
        self._serve(self.store, 800, sys.executable, "-c", _SINK)
        ends = {"api": self.api.netns.v4, "cache": self.cache.netns.v4, "dns": self.dns.netns.v4,
                "store": self.store.secondary["storage"]}  # fmt: skip
        self._run(self.web, "sh", "-c", _WEB.format(**ends))
        self._run(self.api, "sh", "-c", _API.format(**ends))
        self._run(self.web, sys.executable, "-c", _TALK, self.echo.netns.v4)
        self._run(self.web, sys.executable, "-c", _SEND, self.store.secondary["storage"])

    def _serve(self, pod: Pod, port: int, *command: str) -> None:
        process = self._run(pod, *command)
        until(lambda: f":{port} " in pod.netns.run("ss", "-Hltn") or process.poll() is not None)
        assert process.poll() is None, command

    def _run(self, pod: Pod, *command: str) -> subprocess.Popen[bytes]:
        into = f'echo $$ >{pod.cgroup}/cgroup.procs; exec nsenter --net={pod.netns.path} -- "$@"'
        process = subprocess.Popen(["sh", "-c", into, "sh", *command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        self._stack.callback(_ended, process, pod)
        return process


def _ended(process: subprocess.Popen[bytes], pod: Pod) -> None:
    """The process and what it started: all that is in the pod's cgroup."""
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    for pid in (pod.cgroup / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            subprocess.run(["kill", "-9", pid], check=False, capture_output=True)


@contextlib.contextmanager
def make_town(cluster: Cluster, home: Path) -> Iterator[Town]:
    """It works until the end."""
    with ExitStack() as stack:
        yield Town(stack, cluster, home)
