# SPDX-License-Identifier: Apache-2.0
"""List and watch over real HTTP, against a server that answers by a script, also as on bad days."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from weir.errors import ConfigError
from weir.identity.kube import api
from weir.identity.kube.api import Access
from weir.identity.kube.objects import Partial, PodObject
from weir.identity.kube.reflector import Reflector, RequestError, Resource, explain, lines

Answer = tuple[int, list[Any]]


def pod(name: str, version: int, **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "prod", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": "a"}, **more}


def listed(version: int, *items: dict[str, Any], cont: str = "") -> Answer:
    return 200, [
        {"kind": "PodList", "metadata": {"resourceVersion": str(version), "continue": cont}, "items": items}
    ]


def event(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": item}


class Script:
    """Answers in turn, and what was asked. The last answer, a watch, stays open."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.heads: list[dict[str, str]] = []
        self.over = threading.Event()
        self.streams = False
        self.retry_after = ""
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                if "sendInitialEvents" in query and not script.streams:
                    self.send_error(422)
                    return
                script.asked.append(query)
                script.heads.append({k.lower(): v for k, v in self.headers.items()})
                status, parts = script.answers.pop(0) if script.answers else (200, [])
                last = not script.answers
                self.send_response(status)
                if script.retry_after:
                    self.send_header("Retry-After", script.retry_after)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for part in parts:
                    text = part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n"
                    self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
                    self.wfile.flush()
                if last and query.get("watch"):
                    script.over.wait(10)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    yield made
    made.over.set()
    made.server.shutdown()
    made.server.server_close()


class Pods:
    """Names of pods, as a sink."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def resource(self, **more: Any) -> Resource[PodObject]:
        def put(item: PodObject) -> None:
            self.names.add(item.metadata.name)

        def delete(uid: str) -> None:
            self.names.discard(uid.removeprefix("uid-"))

        def known() -> set[str]:
            return {f"uid-{name}" for name in self.names}

        return Resource("pods", "/api/v1/pods", PodObject, put, delete, known, **more)


@pytest.fixture
def started(script: Script) -> Iterator[Callable[..., tuple[Reflector[PodObject], Pods]]]:
    running: list[Reflector[PodObject]] = []

    def start(*answers: Answer, **more: Any) -> tuple[Reflector[PodObject], Pods]:
        script.answers = list(answers)
        pods = Pods()
        opened = Access(server=script.url).open()
        reflector = Reflector(opened, pods.resource(**more), jitter=lambda: -0.49)
        running.append(reflector)
        reflector.start()
        return reflector, pods

    yield start
    for reflector in running:
        reflector.stop()
    script.over.set()
    for reflector in running:
        reflector.join(5)
        assert not reflector.is_alive()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


def test_pages_then_events(script: Script, started: Callable[..., Any]) -> None:
    watch = [event("ADDED", pod("d", 11)), event("MODIFIED", pod("a", 12)), event("DELETED", pod("b", 13))]
    reflector, pods = started(
        listed(9, pod("a", 3)), listed(10, pod("a", 3), pod("b", 4), cont="more"), listed(10, pod("c", 5)),
        (200, watch),
        first="spec.nodeName=a",
    )  # fmt: skip
    until(lambda: pods.names == {"a", "c", "d"})
    assert reflector.synced.is_set()
    near, first, second, third = script.asked[:4]
    assert [q.get("fieldSelector") for q in script.asked] == ["spec.nodeName=a", None, None, None]
    assert near["resourceVersion"] == "0"
    assert ("resourceVersion" in first, first["limit"]) == (False, "500")
    assert (second["continue"], "resourceVersion" in second) == ("more", False)
    assert (third["resourceVersion"], third["allowWatchBookmarks"]) == ("10", "true")


def test_a_list_that_is_streamed(script: Script, started: Callable[..., Any]) -> None:
    """Nothing that was known is gone before its end is marked; the same connection goes on as the watch."""
    script.streams = True
    end = pod("", 20, kind="Pod")
    end["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    reflector, pods = started(
        (200, [event("ADDED", pod("a", 3)), event("ADDED", pod("b", 4)), event("BOOKMARK", end),
               event("DELETED", pod("a", 21)), event("ERROR", status)]),
        (200, [event("ADDED", pod("c", 5)), event("BOOKMARK", pod("", 29))]),
        (200, [event("ADDED", pod("c", 5)), event("BOOKMARK", end), event("MODIFIED", pod("d", 32))]),
    )  # fmt: skip
    until(lambda: pods.names == {"c", "d"})
    assert reflector.counts["lists"] == 2
    assert reflector.counts["expired"] == 1
    first, second, third = script.asked
    assert (first["watch"], first["resourceVersion"], "limit" in first) == ("1", "0", False)
    assert int(first["timeoutSeconds"]) > 4 * 181
    assert "resourceVersion" not in second  # parse_qs leaves empty ones out
    assert third["resourceVersionMatch"] == "NotOlderThan"


def test_a_streamed_list_that_breaks_off_begins_again(script: Script, started: Callable[..., Any]) -> None:
    """Also after a deletion was told in the middle of it, whose version is not that of a whole list."""
    script.streams = True
    end = pod("", 30, kind="Pod")
    end["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
    reflector, pods = started(
        (200, [event("ADDED", pod("a", 3)), event("DELETED", pod("a", 21))]),
        (200, [event("ADDED", pod("b", 4)), event("BOOKMARK", end)]),
        (200, []),
    )
    until(lambda: pods.names == {"b"} and reflector.synced.is_set())
    assert script.asked[1]["sendInitialEvents"] == "true"


def test_a_busy_server_says_how_long_to_wait(script: Script, started: Callable[..., Any]) -> None:
    script.retry_after = "2"
    began = time.monotonic()
    reflector, pods = started(
        (429, [{"code": 429, "message": "too many"}]), listed(10, pod("a", 3)), (200, [])
    )
    until(lambda: pods.names == {"a"})
    assert reflector.counts["http_429"] == 1
    assert time.monotonic() - began > 0.019  # jitter is 0.01 here


def test_a_bookmark_renews_the_version(script: Script, started: Callable[..., Any]) -> None:
    mark = {"kind": "Pod", "metadata": {"resourceVersion": "99"}}
    _, pods = started(listed(10, pod("a", 3)), (200, [event("BOOKMARK", mark)]), (200, []))
    until(lambda: len(script.asked) >= 3)
    assert script.asked[2]["resourceVersion"] == "99"
    assert pods.names == {"a"}


@pytest.mark.parametrize("how", ["event", "status"])
def test_too_old_a_version_lists_again(script: Script, started: Callable[..., Any], how: str) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    gone: Answer = (200, [event("ERROR", status)]) if how == "event" else (410, [status])
    reflector, pods = started(listed(10, pod("a", 3), pod("b", 4)), gone, listed(20, pod("b", 4)), (200, []))
    until(lambda: pods.names == {"b"})
    assert reflector.counts["expired"] == 1
    assert reflector.counts["lists"] == 2
    assert "resourceVersion" not in script.asked[2]


def test_what_cannot_be_decoded_is_left_out_and_counted(started: Callable[..., Any]) -> None:
    odd = {"metadata": {"name": 7}}
    watch = [event("ADDED", odd), event("ADDED", pod("b", 12))]
    reflector, pods = started(listed(10, pod("a", 3), odd), (200, watch))
    until(lambda: pods.names == {"a", "b"})
    assert reflector.counts["undecodable"] == 2


@pytest.mark.parametrize(
    "garbage", [b"\0\1\2\n", b"<html>503</html>\n", b'{"type":"ADDED"', b"[]\n", b'{"type":7,"object":{}}\n']
)
def test_garbage_is_survived(garbage: bytes, started: Callable[..., Any]) -> None:
    _, pods = started(listed(10, pod("a", 3)), (200, [garbage]), (200, [event("ADDED", pod("b", 12))]))
    until(lambda: pods.names == {"a", "b"})


def test_a_server_that_is_down_at_first(started: Callable[..., Any]) -> None:
    status = {"kind": "Status", "code": 503, "message": "etcd is away"}
    reflector, pods = started((503, [status]), (500, [b"oops"]), listed(10, pod("a", 3)), (200, []))
    until(lambda: pods.names == {"a"})
    assert (reflector.counts["http_503"], reflector.counts["http_500"]) == (1, 1)


def test_missing_permission_names_verb_and_resource_once(
    started: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    status = {"kind": "Status", "code": 403, "message": "pods is forbidden"}
    with caplog.at_level(logging.WARNING, "weir.kube"):
        reflector, _ = started((403, [status]), (403, [status]), (403, [status]), listed(10), (200, []))
        until(reflector.synced.is_set)
    (record,) = caplog.records
    assert "verbs list and watch on pods" in record.getMessage()


def test_metadata_only(script: Script, started: Callable[..., Any]) -> None:
    started(listed(10, pod("a", 3)), (200, []), metadata_only=True)
    until(lambda: len(script.heads) >= 2)
    assert "PartialObjectMetadataList" in script.heads[0]["accept"]
    assert "as=PartialObjectMetadata;" in script.heads[1]["accept"]
    assert Partial.__struct_fields__ == ("metadata",)


def test_the_token_is_sent_and_read_again(script: Script, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n", encoding="ascii")
    opened = Access(server=script.url, token_file=str(token)).open()
    opened.get("/version", {}).read()
    assert script.heads[0]["authorization"] == "Bearer first"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_pods_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """What the kubelet mounts and sets; no more of the official client is imported than is needed."""
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", tmp_path)
    assert not Access().wanted
    (tmp_path / "token").write_text("t0ken")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert Access().wanted
    with pytest.raises(ConfigError, match=r"ca\.crt cannot be read"):
        Access().open()
    (tmp_path / "ca.crt").write_text("")
    found = Access().open()
    assert found.server == ("https://[::1]:443" if host == "::1" else "https://127.0.0.1:443")
    assert found._headers() == {"Authorization": "Bearer t0ken"}


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access(server="api.example:6443"), "--api-server api.example:6443: write it as https://HOST:PORT"),
        (Access(server="https://a", token_file="/nowhere"), "--token-file /nowhere: No such file"),
        (Access(server="https://a", ca_file="/nowhere"), "--ca-file /nowhere: cannot be read"),
        (Access(kubeconfig="/nowhere"), "--kubeconfig /nowhere: "),
        (Access(), "service account: "),
    ],
)
def test_settings_that_cannot_be(access: Access, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        access.open()
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)


def test_lines_are_whole_and_bounded() -> None:
    assert list(lines([b"ab", b"c\nd\n\n", b"e\n", b"rest"])) == [b"abc", b"d", b"e"]
    with pytest.raises(RequestError):
        list(lines([b"x" * (1 << 20)] * 9))


def test_explanations_are_one_line() -> None:
    for error in (
        RequestError(401, "Unauthorized"),
        RequestError(403, "x"),
        OSError(111, "Connection refused"),
    ):
        assert "\n" not in explain("pods", error)
