# SPDX-License-Identifier: Apache-2.0
"""The stages in their order: drain → identity → aggregate → snapshot; then idle edges are retired."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from weir import overload
from weir.aggregate import Aggregator, Snapshot
from weir.config import Settings, cgroup
from weir.errors import KernelError
from weir.flows.drain import Drainer
from weir.flows.retire import Retirer
from weir.flows.rows import RowRetirer
from weir.health import Health
from weir.identity import cluster as api
from weir.identity.cidrs import Cidrs
from weir.identity.cluster import Cluster
from weir.identity.index import Identity
from weir.identity.kube.api import Access
from weir.identity.sriov import VirtualFunctions
from weir.identity.types import Owner
from weir.kernel import bpf, side, socket_lb
from weir.kernel.options import KernelOptions
from weir.kernel.pins import Instance
from weir.kernel.routes import compile_routes
from weir.kernel.shed import KernelShed
from weir.kernel.side import KernelSide
from weir.labels import check_labels, label_sources
from weir.overload import Caps, Overload
from weir.tls.processes import Scope
from weir.tls.watch import TlsState, TlsWatch, unavailable
from weir.views.rows import ConnectionRow, connection_rows

_log = logging.getLogger("weir.pipeline")
#: Seconds for the API to tell of this node's pods before the first snapshot goes out without their names.
_PODS_FIRST = 3.0
#: Seconds between two looks for what the kernel may have got since (a module).
_LOOK_AGAIN = 10.0


class Pipeline:
    """One kernel side and the stages behind it; each call holds the lock."""

    def __init__(
        self, kernel: KernelSide, settings: Settings, cgroup2: Path, cluster: Cluster | None = None
    ) -> None:
        self.kernel = kernel
        self.cluster = cluster
        self._settings, self._cgroup2 = settings, cgroup2
        self._begin()
        self._shedding = Shedding(kernel, settings)
        self._vfs = VirtualFunctions(lambda: self.failed("sriov"))
        #: Told the stage of an error that a step survived.
        self.failed: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()
        #: Of what gives edges back; held shortly, and after the other one.
        self._cutting = threading.Lock()
        self._look_at = 0.0
        self._services = settings.services
        self._scope = [cgroup(text, cgroup2)[1] for text in settings.cgroup] or [str(cgroup2)]
        self._closed = False
        self._tls: TlsWatch | None = None

    def _begin(self) -> None:
        """The stages, knowing nothing yet: the kernel has all totals, and the cluster's index all names."""
        settings, kernel = self._settings, self.kernel
        names = self.cluster.names if self.cluster else None
        self.identity = Identity.for_host(Cidrs(settings.cidr), cluster=names, cgroup2=self._cgroup2)
        self._drainer = Drainer(kernel)
        self._aggregator = Aggregator(self.identity, settings.labels, settings.max_series,
                                      routes=settings.route if settings.requests else (),
                                      since=kernel.facts.get("created", 0.0))  # fmt: skip
        idle = int(settings.idle * 1e9)
        self._retirer = Retirer(kernel, idle_ns=idle, pressed_ns=min(idle, 30 * 10**9))
        self._rows = RowRetirer(kernel)
        #: A stage failed half-way: what it knows may not be what the kernel has.
        self._torn = False

    def read_tls(self, scope: Scope) -> TlsWatch | None:
        """Begin to look for TLS libraries, if that is possible here."""
        if "tls" in self.kernel.planes():
            if why := unavailable(self.kernel):
                self.kernel.plane_down("tls", why)
            else:
                self._tls = TlsWatch(self.kernel, scope, self._tls_failed)
                self._tls.start()
        return self._tls

    def _tls_failed(self) -> None:
        self.failed("tls")

    def step(self) -> Snapshot:
        """One round; the snapshot to show."""
        with self._lock:
            if self._torn:
                self._begin()
            self.cut_lost()
            if time.monotonic() >= self._look_at:
                self._look()
                self._look_at = time.monotonic() + _LOOK_AGAIN
            self._mark_ports()
            without = self._shedding.look()
            drain = self._drainer.drain(requests=overload.REQUESTS not in without)
            self._torn = True
            snapshot = self._aggregator.update(drain, without)
            with self._cutting:
                self._retirer.cut(self.identity.stale, drain.monotonic_ns)
                self._rows.step(drain, self._aggregator.requests, self._aggregator)
                self._retirer.step(drain, self._aggregator)
            self._torn = False
            vfs = self._vfs.read()
            tls = self._tls.state() if self._tls else TlsState()
            agent = replace(snapshot.agent, vfs_dropped=self._vfs.dropped, tls_files=tls.files,
                            tls_files_refused=tls.refused, shed=self._shedding.state())  # fmt: skip
            if self.cluster:
                vfs = tuple(map(self.cluster.names.vf, vfs))
                agent = replace(agent, cluster=self.cluster.watch.state())
            return replace(snapshot, vfs=vfs, agent=agent)

    def _mark_ports(self) -> None:
        """Ports that pods' annotations say are not to be parsed, or counted."""
        left_out = self.kernel.maps.mark_ports(self.cluster.index.marked_ports()) if self.cluster else 0
        if left_out:
            _log.warning("more ports are marked by annotations than the kernel side has room for",
                         extra={"fields": {"left_out": left_out}})  # fmt: skip

    def _look(self) -> None:
        """What may have come to this host since the last time."""
        self.kernel.look_again()
        index = self.cluster.index if self.cluster else None
        if index is None or index.by_endpoint or self._services == "dialled":
            return
        if self._services == "endpoints" or socket_lb.found(self._scope):
            index.label_by_endpoint()
            _log.info("services are labelled by their endpoints")

    def close(self) -> None:
        """Touch the kernel side no more: it is about to be closed."""
        if self._tls:
            self._tls.stop()
        with self._lock, self._cutting:
            self._closed = True
            self._shedding.end()

    def cut_lost(self) -> None:
        """An address that is nobody's any more, or another pod's: what comes next has an edge of its own.

        Does not wait for a step that is on its way: a new pod may be talking already.
        """
        with self._cutting:
            if self.cluster is None or self._closed:
                return
            lost = self.cluster.index.take_lost()
            if not lost:
                return
            try:
                self._retirer.cut(self.kernel.maps.slots.towards(lost), time.monotonic_ns())
            except Exception:
                self.cluster.index.lose_again(lost)
                raise

    def connections(self, limit: int = 100_000) -> list[ConnectionRow]:
        """Rows of live sockets, read from the kernel now."""
        with self._lock:
            return connection_rows(self.kernel.records(limit), self._owner, time.monotonic_ns())

    def _owner(self, record: np.void) -> Owner:
        name = bytes(record["comm"]).decode("utf-8", "replace")
        return self.identity.owner(int(record["cgroup"]), int(record["tgid"]), name)


@contextmanager
def opened(
    settings: Settings, temporary: bool = False, settled: Callable[[KernelSide, bool], None] = lambda *_: None
) -> Iterator[Pipeline]:
    """Load the kernel side, or go on with the one that is pinned, and hold the instance.

    ``temporary`` removes everything at the end; else counting goes on without an agent. ``settled`` is called
    when all is attached and no thread was started, with the kernel side and whether there is a cluster.
    """
    cluster = _cluster(settings)
    instance, cgroup2 = side.ready(settings.instance)
    with instance.lock("run"), ExitStack() as after:
        ensure_loaded(instance, settings, cgroup2)
        if temporary:
            after.callback(instance.remove)
        kernel = KernelSide(instance)
        after.callback(kernel.close)
        if settings.bpf_stats:
            after.callback(os.close, bpf.enable_stats())
        settled(kernel, cluster is not None)
        if cluster:
            cluster.watch.start()
            after.callback(cluster.watch.stop)
        pipeline = Pipeline(kernel, settings, cgroup2, cluster)
        after.callback(pipeline.close)
        if cluster:
            Cutter(pipeline, cluster).start()
            cluster.watch.wait(_PODS_FIRST)
        pipeline.read_tls(_scope(settings, cgroup2))
        yield pipeline


class Shedding:
    """What this pipeline does without while the process needs more than it may."""

    def __init__(self, kernel: KernelSide, settings: Settings) -> None:
        # a snapshot may take its time; when the lease ends the kernel takes up again what it was to leave
        lease = max(10.0, 3 * overload.SLOWER * settings.interval)
        self._kernel = KernelShed(kernel.maps, lease) if kernel.maps.has("shed") else None
        planes = [p for p in overload.PLANES if self._kernel or p not in (overload.TAP, overload.REQUESTS)]
        caps = Caps(settings.max_cpu, settings.max_memory)
        self._overload = Overload(caps, settings.interval, planes, idle=self._idle)

    def _idle(self, plane: str) -> bool:
        return plane == overload.TAP and self._kernel is not None and not self._kernel.tapped()

    def look(self) -> tuple[str, ...]:
        """What this step does without."""
        taken = self._overload.look()
        if self._kernel:
            self._kernel.without(tap=overload.TAP in taken, requests=overload.REQUESTS in taken)
        return taken

    def state(self) -> dict[str, tuple[bool, float]]:
        """As ``AgentValues.shed``."""
        taken = self._overload.taken
        return {plane: (plane in taken, seconds) for plane, seconds in self._overload.seconds.items()}

    def end(self) -> None:
        """Give everything back."""
        if self._kernel:
            self._kernel.without(tap=False, requests=False)


def _scope(settings: Settings, cgroup2: Path) -> Scope:
    """Whose processes are looked at."""
    options = settings.kernel(cgroup2)
    below = (os.path.relpath(path, cgroup2) for _, path in options.cgroups)
    return Scope(frozenset(options.netns), tuple("/" if path == "." else f"/{path}" for path in below))


def access(settings: Settings) -> Access:
    """Where the Kubernetes API is; ConfigError for settings that do not go together."""
    return api.access(settings.kubeconfig, settings.kube_context, settings.api_server, settings.token_file,
                      settings.ca_file)  # fmt: skip


def _cluster(settings: Settings) -> Cluster | None:
    """The Kubernetes API, where there is one; ConfigError where it cannot be as it was asked for."""
    where = access(settings)
    external = api.external_label(settings.external_label)
    labels = frozenset(filter(None, label_sources(settings.labels).values()))
    if not settings.kubernetes or not where.wanted:
        return None
    return api.connect(where, settings.node_name, external, labels)


class Cutter(threading.Thread):
    """Cuts edges off as soon as the API tells that an address changed hands; a drain may be seconds away."""

    def __init__(self, pipeline: Pipeline, cluster: Cluster) -> None:
        super().__init__(name="weir-cutter", daemon=True)
        self._pipeline = pipeline
        self._told = threading.Event()
        cluster.index.hurry = self._told.set

    def run(self) -> None:
        while True:
            self._told.wait()
            self._told.clear()
            try:
                self._pipeline.cut_lost()
            except Exception:
                self._pipeline.failed("cut")
                _log.exception("edges to an address that changed hands could not be cut off")


def ensure_loaded(instance: Instance, settings: Settings, cgroup2: Path) -> None:
    """Load unless the same programs with the same options are pinned already. ConfigError before that."""
    Cidrs(settings.cidr)
    compile_routes(settings.route)
    check_labels(settings.labels)
    options = settings.kernel(cgroup2)
    fields = {"fields": {"instance": instance.name}}
    if instance.loaded() and instance.facts().get("digest") == options.digest():
        _log.info("using the pinned kernel side", extra=fields)
    else:
        if instance.home.exists():
            why = "options or programs changed" if instance.loaded() else "what is pinned is not whole"
            _log.warning("%s: the kernel side is replaced, counters start again", why, extra=fields)
        _load(instance, options, cgroup2)
    if others := instance.drop_others():
        _log.warning("pins of another version of Weir removed: %s", ", ".join(others), extra=fields)


def _load(instance: Instance, options: KernelOptions, cgroup2: Path) -> None:
    started = time.monotonic()
    facts = side.load(instance, options, cgroup2)
    _log.info(
        "kernel side loaded",
        extra={"fields": {"tcp": facts["variant"], "seconds": f"{time.monotonic() - started:.2f}"}},
    )
    for plane, why in facts["planes"].items():
        if why:
            _log.warning("a plane is down", extra={"fields": {"plane": plane, "why": why}})
    for name, why in facts["refused"].items():
        tail = "\n".join(facts["log"].get(name, "").splitlines()[-3:])
        fields = {"program": name, "why": why} | ({"verifier": tail} if tail else {})
        _log.warning("a program was refused", extra={"fields": fields})


def unload(name: str) -> bool:
    """Remove every trace of an instance; whether there was any. BusyError while an agent runs."""
    instance, _ = side.ready(name)
    with instance.lock("run"):
        return instance.remove()


class Writer(threading.Thread):
    """The one writer thread: a step every interval, kept alive through errors."""

    def __init__(
        self,
        step: Callable[[], Snapshot],
        health: Health[Snapshot],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="weir-writer", daemon=True)
        self._step, self._health, self._stop_event, self._clock = step, health, stop, clock

    def run(self) -> None:
        due = self._clock()
        while not self._stop_event.wait(max(0.0, due - self._clock())):
            try:
                snapshot = self._step()
                self._health.slow_down(overload.SLOWER if overload.INTERVAL in snapshot.without else 1)
                self._health.publish(snapshot)
            except Exception:
                self._health.fail("drain")
                _log.exception("a drain failed; the last snapshot stays")
            due = max(due + self._health.interval, self._clock())


@contextmanager
def loaded_side(name: str) -> Iterator[tuple[Instance, KernelSide]]:
    """The pinned kernel side of an instance, beside its agent; KernelError if there is none on this host."""
    instance, _ = side.ready(name)
    try:
        if not instance.loaded():
            raise KernelError(f"nothing is loaded for instance {name!r}: run `weir load` or `weir run` first")
        kernel = KernelSide(instance)
        try:
            yield instance, kernel
        finally:
            kernel.close()
    finally:
        instance.leave()
