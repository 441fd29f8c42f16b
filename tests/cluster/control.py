# SPDX-License-Identifier: Apache-2.0
"""A real kube-apiserver with a real etcd, on loopback ports of its own or in a namespace of a node's."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, utils

from tests.kernel.peers.netns import Netns

Completed = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]
PATIENCE = float(os.environ.get("WEIR_PATIENCE", "30")) * 2
_ADMIN = "weir-test-admin"
#: The Prometheus Operator's own definitions, among ``programs("clients")``.
POD_MONITORS = "monitoring.coreos.com_podmonitors.yaml"
PROMETHEUS_RULES = "monitoring.coreos.com_prometheusrules.yaml"
_PLACES = {
    "Namespace": "/api/v1/namespaces", "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PrometheusRule": "/apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "Pod": "/api/v1/namespaces/{}/pods",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}  # fmt: skip


@functools.cache
def programs(kind: str = "") -> Path:
    """The folder of kube-apiserver and etcd, of ``node`` or ``clients``; built if it is not there yet."""
    command = [str(ROOT / "scripts/control-plane"), *filter(None, [kind])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"programs cannot be had ({' '.join(command)})")
    assert done.returncode == 0, "scripts/control-plane failed"
    return Path(done.stdout.strip())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ControlPlane:
    """Both processes; the API server may be stopped, stalled and started again.

    With ``inside``, a network namespace, the server is at the address that ``kubernetes.default`` has by its
    service network, which is ``lo``'s there: pods find it without a kube-proxy, the tests by ``kubectl``.
    """

    def __init__(self, programs: Path, folder: Path, inside: Netns | None = None) -> None:
        self._programs = programs
        self._folder = folder
        self._etcd_port, peer_port, self.port = free_port(), free_port(), free_port()
        self.host, self._enter = "127.0.0.1", []
        if inside:
            self.host, self.port = "10.96.0.1", 443
            self._enter = ["nsenter", f"--net={inside.path}", "--"]
            inside.run("ip", "address", "add", f"{self.host}/32", "dev", "lo")
        (folder / "tokens.csv").write_text(f'{_ADMIN},admin,admin,"system:masters"\n')
        self._key = folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", self._key, "2048"], check=True, capture_output=True)
        self._logs = [(folder / f"{name}.log").open("wb") for name in ("etcd", "apiserver")]
        self._etcd = subprocess.Popen(
            [*self._enter, programs / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
             "--quota-backend-bytes", str(8 << 30),
             "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
             "--listen-peer-urls", f"http://127.0.0.1:{peer_port}"],
            stdout=self._logs[0], stderr=self._logs[0],
        )  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._etcd_port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def ca(self) -> Path:
        """The server's certificate signs itself."""
        return self._folder / "certificates/apiserver.crt"

    def start(self, *options: str) -> None:
        """Start the API server and wait until it is ready."""
        self._server = subprocess.Popen(
            [*self._enter, self._programs / "kube-apiserver", "--etcd-servers", self.etcd_url,
             "--bind-address", self.host, "--secure-port", str(self.port),
             "--cert-dir", self._folder / "certificates", "--authorization-mode", "RBAC",
             "--token-auth-file", self._folder / "tokens.csv",
             "--service-account-issuer", "https://weir.test", "--service-account-key-file", self._key,
             "--service-account-signing-key-file", self._key, "--service-cluster-ip-range", "10.96.0.0/16",
             "--allow-privileged=true",
             "--etcd-compaction-interval", "0",
             *([] if self._enter else ["--disable-admission-plugins", "ServiceAccount"]), *options],
            stdout=self._logs[1], stderr=self._logs[1], env={**os.environ, "GOMEMLIMIT": "14GiB"},
        )  # fmt: skip
        self._until(self._ready, "the API server does not become ready")

    def _ready(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self._folder / "apiserver.log").read_text()[-2000:]
        try:
            if self._enter:
                return self.kubectl("get", "--raw", "/readyz", code=None).stdout == "ok"
            return bool(self.api.read_namespace("default"))
        except Exception:  # noqa: BLE001 whatever it says before it is ready
            return False

    @staticmethod
    def _until(holds: Callable[[], bool], message: str) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, message
            time.sleep(0.1)

    def stop(self, kind: signal.Signals = signal.SIGKILL) -> None:
        """End the API server; etcd stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)
            self._server.send_signal(kind)
            self._server.wait(PATIENCE)
            self._server = None

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """It does not answer, but its connections stay."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def elsewhere(self) -> contextlib.AbstractContextManager[None]:
        """Start the server where nobody but us finds it."""
        return self._on_port(free_port())

    @contextlib.contextmanager
    def _on_port(self, port: int) -> Iterator[None]:
        known, self.port = self.port, port
        try:
            self.start()
            yield
        finally:
            self.stop()
            self.port = known

    def compact(self) -> None:
        """Have etcd forget everything but the present."""
        revision = self.etcd("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
        self.etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def etcd(self, path: str, body: dict[str, Any]) -> Any:
        """Ask etcd, by its JSON gateway."""
        request = urllib.request.Request(f"{self.etcd_url}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    @property
    def server_pid(self) -> int:
        """The API server's."""
        assert self._server is not None
        return self._server.pid

    def close(self) -> None:
        self.stop()
        self._etcd.kill()
        self._etcd.wait()
        for log in self._logs:
            log.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; written where it is not there yet."""
        path = self._folder / "kubeconfig"
        if not path.exists():
            cluster = {"server": self.url, "certificate-authority": str(self.ca)}
            path.write_text(yaml.safe_dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "admin", "user": {"token": _ADMIN}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            }))  # fmt: skip
        return path

    def kubectl(self, *arguments: str, stdin: str = "", code: int | None = 0) -> Completed:
        """As a user at a shell of the server's host; the exit code is checked, but for None."""
        command = [*self._enter, str(programs("node") / "kubectl"), "--kubeconfig", str(self.kubeconfig)]
        done = subprocess.run([*command, *arguments], text=True, capture_output=True, input=stdin,
                              check=False, timeout=PATIENCE * 5)  # fmt: skip
        assert code is None or done.returncode == code, f"kubectl {' '.join(arguments)}: {done}"
        return done

    @property
    def _client(self) -> client.ApiClient:
        configuration = client.Configuration()
        configuration.host = self.url
        configuration.ssl_ca_cert = str(self.ca)
        configuration.api_key = {"authorization": f"Bearer {_ADMIN}"}
        configuration.retries = False
        return client.ApiClient(configuration)

    @property
    def api(self) -> Any:
        """A CoreV1Api, which takes plain dictionaries whatever its types say."""
        return client.CoreV1Api(self._client)

    @property
    def batch(self) -> Any:
        """A BatchV1Api."""
        return client.BatchV1Api(self._client)

    def put(
        self, item: dict[str, Any], namespace: str = "", *, dry: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Server-side apply, with unknown fields as errors; status and answer."""
        where = namespace or item["metadata"].get("namespace", "")
        path = f"{_PLACES[item['kind']].format(where)}/{item['metadata']['name']}"
        query = "fieldManager=weir-test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        request = urllib.request.Request(
            f"{self.url}{path}?{query}", json.dumps(item).encode(), method="PATCH",
            headers={"Authorization": f"Bearer {_ADMIN}", "Content-Type": "application/apply-patch+yaml"},
        )  # fmt: skip
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def define(self, definition: Path) -> None:
        """A CustomResourceDefinition, served from then on."""
        item = yaml.safe_load(definition.read_text())
        status, said = self.put(item)
        assert status in (200, 201), said
        versions = [v["name"] for v in item["spec"]["versions"] if v["storage"]]
        api: Any = client.CustomObjectsApi(self._client)
        names = item["spec"]["names"]["plural"]

        def served() -> bool:
            try:
                return bool(api.list_cluster_custom_object(item["spec"]["group"], versions[0], names))
            except client.ApiException:
                return False

        self._until(served, f"{names} are not served")

    def apply(self, manifest: Path) -> None:
        """Create what a file has."""
        objects = [item for item in yaml.safe_load_all(manifest.read_text()) if item]
        for item in objects:
            utils.create_from_dict(self._client, item)

    def slice(self, item: dict[str, Any]) -> None:
        """Create an EndpointSlice."""
        api: Any = client.DiscoveryV1Api(self._client)
        api.create_namespaced_endpoint_slice(item["metadata"]["namespace"], item)

    def wipe_slices(self) -> None:
        """Delete those of the tests."""
        api = client.DiscoveryV1Api(self._client)
        api.delete_collection_namespaced_endpoint_slice("prod")

    def bind(self, name: str, role: str, namespace: str, account: str) -> None:
        """Give a service account a ClusterRole."""
        body: Any = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        }
        client.RbacAuthorizationV1Api(self._client).create_cluster_role_binding(body)

    def role(self, name: str) -> Any:
        """A ClusterRole."""
        return client.RbacAuthorizationV1Api(self._client).read_cluster_role(name)

    def token(self, namespace: str, account: str) -> str:
        """A token of a service account, as a pod gets it."""
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        made = self.api.create_namespaced_service_account_token(account, namespace, request)
        return str(made.status.token)
