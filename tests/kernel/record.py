# SPDX-License-Identifier: Apache-2.0
"""Records conversations of real clients and servers: ``python -m tests.kernel.record``, in ``unshare -n``.

Each is a file of ``recorded/``: who made it, every piece that either end sent in the order in which it
passed (in hexadecimal), and what the client itself was told. ``test_recorded.py`` says them again.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc  # type: ignore[import-untyped]

from tests.kernel.peers.grpc_calls import _HANDLERS
from tests.kernel.test_http_servers import NGINX_CONF
from tests.kernel.test_upgrades import APACHE_CONF

FOLDER = Path(__file__).parent / "recorded"
Row = tuple[str, str, int]
_PORT, _VIA = 8080, 8079
_NODE = """
import http2 from "node:http2";
const session = http2.connect("http://127.0.0.1:" + process.argv[1]);
const told = [];
function ask(method, path, body) {
  return new Promise((done) => {
    const stream = session.request({ ":method": method, ":path": path, "x-long": "n".repeat(90) });
    stream.on("response", (headers) => told.push(["http2", method, headers[":status"]]));
    stream.on("end", done).resume();
    stream.end(body);
  });
}
for (const path of ["/", "/gone", "/none"])
  await Promise.all([ask("GET", path), ask("POST", "/sink", "q".repeat(3000)), ask("HEAD", path), ask("PUT", "/down", "x")]);
session.close();
console.log(JSON.stringify(told));
"""  # noqa: E501


class Recorder:
    """Passes one connection at a time on to ``port``; ``connections``: what either end of each said."""

    def __init__(self, port: int) -> None:
        self.connections: list[list[tuple[str, str]]] = []
        self._port, self._listener = port, socket.create_server(("127.0.0.1", _VIA))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        lines: list[tuple[str, str]] = []
        self.connections.append(lines)
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            ends = selectors.DefaultSelector()
            ends.register(client, selectors.EVENT_READ, ("client", server))
            ends.register(server, selectors.EVENT_READ, ("server", client))
            piece = b"-"
            while piece:
                for key, _ in ends.select():
                    who, other = key.data
                    piece = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not piece:
                        break
                    lines.append((who, piece.hex()))
                    other.sendall(piece)


@contextmanager
def _serving(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", _PORT)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="weirt-"))
    (home / "html").mkdir()
    (home / "html/index.html").write_text("x" * 612)
    (home / "html/page.txt").write_text("compress me " * 500)
    return home


@contextmanager
def _nginx() -> Iterator[None]:
    home = _home()
    conf = NGINX_CONF.format(home=home, port=_PORT).replace(f"{_PORT};", f"{_PORT} http2;", 1)
    (home / "nginx.conf").write_text(conf)
    with _serving("nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")):
        yield
    shutil.rmtree(home)


@contextmanager
def _apache() -> Iterator[None]:
    home = _home()
    (home / "conf").write_text(APACHE_CONF.format(home=home, port=_PORT))
    with _serving("apache2", "-X", "-f", str(home / "conf")):
        yield
    shutil.rmtree(home)


@contextmanager
def _grpc() -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weir.Test", _HANDLERS),))
    server.add_insecure_port(f"127.0.0.1:{_PORT}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def _nghttp() -> list[Row]:
    """Its statistics have a line for each request: id, times, status, size, path."""
    urls = [f"http://127.0.0.1:{_VIA}{path}" for path in ("/", "/gone", "/none", "/moved", "/page.txt")]
    said = _run("nghttp", "-ns", "-m3", "-HAccept-Encoding: gzip", *urls)
    return [
        ("http2", "GET", int(n)) for n in re.findall(r"^\s*\d+\s.*?\s(\d{3})\s+\S+\s+/", said, re.MULTILINE)
    ]


def _curl() -> list[Row]:
    told: list[Row] = []
    for how in ("--http2", "--http1.1"):
        for path in ("/index.html", "/none"):
            said = _run("curl", "-so/dev/null", how, "-w%{http_version} %{http_code}",
                        f"http://127.0.0.1:{_VIA}{path}")  # fmt: skip
            version, code = said.split()
            told.append(("http2" if version == "2" else "http", "GET", int(code)))
    return told


def _node() -> list[Row]:
    said = json.loads(_run("node", "--input-type=module", "-e", _NODE, str(_VIA)))
    return [(protocol, method, status) for protocol, method, status in said]


def _calls() -> list[Row]:
    told: list[Row] = []
    with grpc.insecure_channel(f"127.0.0.1:{_VIA}") as channel:
        one, many = channel.unary_unary("/weir.Test/One"), channel.unary_stream("/weir.Test/Many")
        collect, echo = channel.stream_unary("/weir.Test/Collect"), channel.stream_stream("/weir.Test/Echo")
        for code in (b"0", b"5", b"13", b"0"):
            for call in (
                lambda code=code: one(code, metadata=[("x-id", "7" * 40)]),
                lambda code=code: list(many(code)),
                lambda code=code: collect(iter([b"0", code])),
                lambda code=code: list(echo(iter([b"0", code]))),
            ):
                try:
                    call()
                    told.append(("grpc", "", 1))
                except grpc.RpcError as error:
                    told.append(("grpc", "", 1 + error.code().value[0]))
    return told


_RECORDED: dict[str, tuple[str, Callable[[], AbstractContextManager[None]], Callable[[], list[Row]]]] = {
    "nghttp": ("nghttp (nghttp2), nginx", _nginx, _nghttp),
    "curl": ("curl, by an upgrade and by HTTP/1.1, Apache httpd", _apache, _curl),
    "node": ("Node's http2, nginx", _nginx, _node),
    "grpc": ("gRPC's C core at both ends", _grpc, _calls),
}


def main() -> None:
    """Record all of them anew."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    FOLDER.mkdir(exist_ok=True)
    for name, (made_by, serves, asks) in _RECORDED.items():
        with serves():
            recorder = Recorder(_PORT)
            told = Counter(asks())
            time.sleep(0.3)
            recorder.close()
        connections = [lines for lines in recorder.connections if lines]
        counts = [[*row, n] for row, n in sorted(told.items())]
        record = {"made by": made_by, "counts": counts, "connections": connections}
        (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=0) + "\n")
        print(name, len(connections), "connections", told)


if __name__ == "__main__":
    main()
