# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 conversations as pieces that either end says, made by python-hyper's h2 (its headers by hpack)."""

from __future__ import annotations

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.kernel.peers.dialogue import CLIENT, SERVER, Line

Header = tuple[str, str]
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


class Spoken:
    """Two ends that hear each other; :meth:`lines` gives what was said since the last time."""

    def __init__(self, greets: bool = False, upgrade: bool = False) -> None:
        """``greets``: the server speaks first; ``upgrade``: so it does, behind a request of HTTP/1."""
        self.ends = {
            who: H2Connection(H2Configuration(client_side=who == CLIENT, header_encoding="utf-8"))
            for who in (CLIENT, SERVER)
        }
        self._lines: list[Line] = []
        #: The header HTTP2-Settings of the request that asks for the upgrade.
        self.settings = b""
        if upgrade:
            greets = True
            self.settings = self.ends[CLIENT].initiate_upgrade_connection() or b""
            self.ends[SERVER].initiate_upgrade_connection(self.settings)
        else:
            for who in (SERVER, CLIENT) if greets else (CLIENT, SERVER):
                self.ends[who].initiate_connection()
        said = {who: end.data_to_send() for who, end in self.ends.items()}
        for who, other in (
            ((SERVER, CLIENT), (CLIENT, SERVER)) if greets else ((CLIENT, SERVER), (SERVER, CLIENT))
        ):
            self._lines.append((who, said[who]))
            self.ends[other].receive_data(said[who])
        self.flush()

    def flush(self) -> None:
        """What either end has to say is said."""
        for who, other in ((CLIENT, SERVER), (SERVER, CLIENT)) * 2:
            if data := self.ends[who].data_to_send():
                self._lines.append((who, data))
                self.ends[other].receive_data(data)

    def ask(
        self, method: str = "GET", path: str = "/", *more: Header, body: bytes = b"", end: bool = True
    ) -> int:
        """A request, its body with it; its stream."""
        client = self.ends[CLIENT]
        stream = client.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "here")]
        client.send_headers(stream, [*head, *more], end_stream=end and not body)
        if body:
            client.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def answer(
        self, stream: int, status: int, *more: Header, body: bytes = b"", trailers: Iterable[Header] = ()
    ) -> None:
        """The whole answer, in one piece."""
        server, trailers = self.ends[SERVER], list(trailers)
        server.send_headers(stream, [(":status", str(status)), *more], end_stream=not (body or trailers))
        if body:
            server.send_data(stream, body, end_stream=not trailers)
        if trailers:
            server.send_headers(stream, trailers, end_stream=True)
        self.flush()

    def call(self, code: int, *more: Header, body: bytes = b"\0\0\0\0\5hello", only: bool = False) -> None:
        """A call of gRPC and its answer (``only``: trailers only)."""
        stream = self.ask("POST", "/hello.Greeter/Say", *GRPC, *more, body=body)
        status = ("grpc-status", str(code))
        if only:
            self.answer(stream, 200, GRPC[0], status, ("grpc-message", "no"))
        else:
            self.answer(stream, 200, GRPC[0], body=body, trailers=[status])

    def reset(self, who: str, stream: int, code: int) -> None:
        """RST_STREAM by one end."""
        self.ends[who].reset_stream(stream, code)
        self.flush()

    def lines(self) -> list[Line]:
        """What was said since the last time."""
        said, self._lines = self._lines, []
        return said


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
