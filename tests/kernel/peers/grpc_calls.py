# SPDX-License-Identifier: Apache-2.0
"""gRPC's own server and clients (C core) on loopback: prints the port, and by code what clients were told.

Run as ``python -m tests.kernel.peers.grpc_calls``. A call's message is the code that it is to end with; calls
of all four kinds, several channels, several threads each; then some that take too long.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]

CHANNELS, THREADS, CALLS, LATE = 3, 5, 211, 7
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_told: Counter[int] = Counter()
_lock = threading.Lock()


def _end(code: int, context: grpc.ServicerContext) -> None:
    if code:
        context.abort(_CODES[code], "as you like")


def _one(request: bytes, context: grpc.ServicerContext) -> bytes:
    _end(int(request), context)
    return b"x" * 100


def _late(*_: object) -> bytes:
    time.sleep(0.5)
    return b"too late"


def _many(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (b"y" * 30 for _ in range(5))
    _end(int(request), context)


def _collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return _one(list(requests)[-1], context)


def _echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request
    _end(int(request), context)


_HANDLERS = {
    "One": grpc.unary_unary_rpc_method_handler(_one),
    "Late": grpc.unary_unary_rpc_method_handler(_late),
    "Many": grpc.unary_stream_rpc_method_handler(_many),
    "Collect": grpc.stream_unary_rpc_method_handler(_collect),
    "Echo": grpc.stream_stream_rpc_method_handler(_echo),
}


def _count(call: Callable[[], Any]) -> None:
    try:
        call()
        code = 0
    except grpc.RpcError as error:
        code = error.code().value[0]
    with _lock:
        _told[code] += 1


def _calls(channel: grpc.Channel, seed: int) -> None:
    one, many = channel.unary_unary("/weir.Test/One"), channel.unary_stream("/weir.Test/Many")
    collect, echo = channel.stream_unary("/weir.Test/Collect"), channel.stream_stream("/weir.Test/Echo")
    for n in range(CALLS):
        code = str((n + seed) % 17 if n % 3 else 0).encode()
        kinds = (
            partial(one, code, metadata=[("x-number", code.decode())]),
            lambda code=code: list(many(code)),
            lambda code=code: collect(iter([b"0", code])),
            lambda code=code: list(echo(iter([b"0", b"0", code]))),
        )
        _count(kinds[n % 4])


def main() -> None:
    """Make all calls."""
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weir.Test", _HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
                for _ in range(CHANNELS)]  # fmt: skip
    threads = [threading.Thread(target=_calls, args=(channel, 7 * n))
               for n in range(THREADS) for channel in channels]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    none = channels[0].unary_unary("/weir.Test/None")
    late = channels[0].unary_unary("/weir.Test/Late")
    for _ in range(LATE):
        _count(lambda: none(b"0"))
        _count(lambda: late(b"0", timeout=0.1))
    time.sleep(0.6)
    for channel in channels:
        channel.close()
    server.stop(None).wait()
    print(json.dumps({"port": port, "told": _told}))


if __name__ == "__main__":
    main()
