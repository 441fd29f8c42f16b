# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that takes its time, and clients that measure it. Run as ``python -m``.

Prints the port and how long each request took the client, in seconds: CLOCK_MONOTONIC in its own process,
from before the request is written to when the head of its answer is read.
"""

from __future__ import annotations

import http.client
import http.server
import json
import random
import socketserver
import threading
import time

CLIENTS, REQUESTS = 3, 199


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def _ask(port: int, seed: int, took: list[float]) -> None:
    chance = random.Random(seed)
    client = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(REQUESTS):
        wait = chance.choice([0.005, 0.01, 0.02]) * chance.uniform(1, 1.3)
        if chance.random() < 0.03:
            wait += 0.15
        began = time.monotonic_ns()
        client.request("GET", f"/{wait}")
        answer = client.getresponse()
        took.append((time.monotonic_ns() - began) / 1e9)
        answer.read()


def _main() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    took: list[float] = []
    clients = [
        threading.Thread(target=_ask, args=(server.server_port, seed, took)) for seed in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(json.dumps([server.server_port, took]))


if __name__ == "__main__":
    _main()
