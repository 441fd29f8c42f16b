# SPDX-License-Identifier: Apache-2.0
"""``weir kube-cache``: the reflectors' threads fill the shelves, an event loop serves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from weir import log
from weir.errors import ConfigError
from weir.export.server import listening
from weir.identity.kube.api import Access
from weir.identity.kube.objects import NodeObject, Partial, PodObject, ServiceObject, SliceObject
from weir.identity.kube.reflector import Reflector, Resource
from weir.kubecache import slim
from weir.kubecache.app import Cache, Served
from weir.kubecache.shelf import Shelf
from weir.kubecache.tokens import Tokens

_log = logging.getLogger("weir.kubecache")
#: Files that are no watches: connections to the API server, those that ask for something else.
_OWN_FILES = 200
_BACKLOG = 1024


@dataclass(frozen=True)
class Options:
    """Where to listen, HOST:PORT; files of certificate and key; who may read (nobody named: all)."""

    listen: str
    cert_file: str = ""
    key_file: str = ""
    users: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def tls(self) -> ssl.SSLContext | None:
        """ConfigError for files that cannot be, and for tokens that would go over the wire in the clear."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("--tls-cert-file and --tls-key-file: give both or none")
        if self.users and not self.cert_file:
            raise ConfigError("--allow: tokens must not be sent in the clear; give --tls-cert-file as well")
        if not self.cert_file:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "strerror", "") or getattr(error, "reason", "") or str(error)
            raise ConfigError(f"--tls-cert-file {self.cert_file}, --tls-key-file: {why}") from None
        return context


def resources(labels: Collection[str]) -> dict[str, tuple[str, str, type[Any], slim.Slim, bool]]:
    """By path: name, kind of the list, what is decoded, what is kept of it, and whether metadata is all."""
    return {
        "/api/v1/pods": ("pods", "PodList", PodObject, slim.pods(labels), False),
        "/api/v1/services": ("services", "ServiceList", ServiceObject, slim.plain, False),
        "/apis/discovery.k8s.io/v1/endpointslices": (
            "endpointslices", "EndpointSliceList", SliceObject, slim.slices, False,
        ),
        "/api/v1/nodes": ("nodes", "NodeList", NodeObject, slim.plain, False),
        "/apis/batch/v1/jobs": ("jobs", "JobList", Partial, slim.plain, True),
    }  # fmt: skip


def serve(where: Access, options: Options, log_level: str = "info") -> None:
    """Run until SIGTERM or SIGINT."""
    log.setup(log_level)
    context, api = options.tls(), where.open()
    listener = listening(options.listen, _BACKLOG)
    served, reflectors = {}, []
    for path, (name, kind, decoded, kept, metadata_only) in resources(options.labels).items():
        shelf = Shelf(kept)
        reflector: Reflector[Any] = Reflector(api, Resource(
            name, path, decoded, shelf.put, shelf.delete, shelf.known, shelf.at, metadata_only=metadata_only,
        ))  # fmt: skip
        served[path] = Served(name, kind, shelf, reflector.synced.is_set, _age(reflector))
        reflectors.append(reflector)
    cache = Cache(served, Tokens(api, options.users) if options.users else None, _many_files() - _OWN_FILES)
    for reflector in reflectors:
        reflector.start()
    _log.info("serving", extra={"fields": {"address": options.listen, "server": api.server}})
    asyncio.run(_until_stopped(cache.app(), listener, context))
    _log.info("stopped")


def _age(reflector: Reflector[Any]) -> Callable[[], float]:
    return lambda: time.monotonic() - reflector.heard


async def _until_stopped(app: web.Application, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, ssl_context=tls, backlog=_BACKLOG).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def _many_files() -> int:
    """How many files may be open: a watch is a connection, and each agent has one for each resource."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        now = most
    return now
