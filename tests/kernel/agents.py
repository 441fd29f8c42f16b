# SPDX-License-Identifier: Apache-2.0
"""``weir`` as real processes: one command, or an agent that is scraped, stopped and killed."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.kernel.peers.netns import PREFIX, Netns
from weir.kernel import bpf, machine, mounts

ROOT = Path(__file__).parents[2]
#: Seconds that anything here may take.
PATIENCE = float(os.environ.get("WEIR_PATIENCE", "30"))
_numbers = itertools.count(1)
_SERVING = re.compile(r"msg=serving metrics=(https?://\S+)/metrics")
_PROG_NEXT_ID, _PROG_FD_BY_ID = 11, 13

Labels = frozenset[tuple[str, str]]


def command(*arguments: str) -> list[str]:
    """How ``weir`` is started from a checkout."""
    return [sys.executable, "-m", "weir", *arguments]


#: For what is to count requests: without them a load takes half the time, and few tests are about them.
ASKING = {"WEIR_REQUESTS": "1"}


def environment(**more: str) -> dict[str, str]:
    """Ours without any WEIR_ setting but one (see ASKING), and ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    own = {"PYTHONPATH": str(ROOT / "agent"), "PYTHONDONTWRITEBYTECODE": "1", "WEIR_REQUESTS": "0"}
    return {**kept, **own, **more}


def weir(
    *arguments: str, wrap: Sequence[str] = (), env: Mapping[str, str] | None = None, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """One command to its end; ``wrap`` goes before it (unshare ...)."""
    return subprocess.run(
        [*wrap, *command(*arguments)], text=True, capture_output=True, check=False, timeout=PATIENCE,
        env=environment(**(env or {})), cwd="/", user=user, extra_groups=None if user is None else [],
    )  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One scrape: sample name and labels -> value; ``counters`` are those that must not go down."""

    samples: Mapping[tuple[str, Labels], float]
    counters: Mapping[tuple[str, Labels], float]

    @staticmethod
    def of(text: str) -> Page:
        samples, counters = {}, {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                samples[key] = sample.value
                if family.type in ("counter", "histogram", "summary"):
                    counters[key] = sample.value
        return Page(samples, counters)

    def sum(self, name: str, **labels: object) -> int:
        """Sum of the samples of that name which have these labels, as ``sum(name{...})`` in PromQL."""
        wanted = {(label, str(value)) for label, value in labels.items()}
        return int(sum(v for (n, has), v in self.samples.items() if n == name and wanted <= has))

    def label(self, name: str, wanted: str, **labels: object) -> set[str]:
        """Values of one label over the samples of that name which have these labels."""
        given = {(label, str(value)) for label, value in labels.items()}
        return {dict(has)[wanted] for n, has in self.samples if n == name and given <= has}


def both(page: Page, name: str, port: int) -> tuple[int, int]:
    """What the source and what the destination reported for a service port."""
    return (
        page.sum(name, reporter="source", destination_port=port),
        page.sum(name, reporter="destination", destination_port=port),
    )


@dataclass
class Rising:
    """Scrapes one after the other: no counter of a pair may go down while its series is there."""

    last: Mapping[tuple[str, Labels], float] = field(default_factory=dict)
    pages: int = 0

    def see(self, page: Page) -> None:
        now = {k: v for k, v in page.counters.items() if not k[0].startswith(("weir_agent_", "process_"))}
        fallen = {k: (v, now[k]) for k, v in self.last.items() if k in now and now[k] < v}
        assert not fallen, fallen
        self.last = now
        self.pages += 1


class Agent:
    """``weir run`` on a free port, 0.2 s between two snapshots, for the given namespaces only.

    ``wrap`` goes before it (unshare ...).
    """

    def __init__(
        self, instance: str, netns: Iterable[Netns], *options: str, env: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
    ) -> None:  # fmt: skip
        scope = [part for n in netns for part in ("--netns", n.name)]
        base = ["run", "--instance", instance, "--listen", "127.0.0.1:0", "--interval", "0.2", *scope]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 closed in __exit__
        self.process = subprocess.Popen(
            [*wrap, *command(*base, *options)], stdout=self._log, stderr=self._log, cwd="/",
            env=environment(**(env or {})),
        )  # fmt: skip
        self.url = ""
        self.instance = instance
        self._lines: list[str] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> list[str]:
        """Lines that it wrote until now."""
        if self._log.closed:
            return self._lines
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode().splitlines()

    def ready(self) -> Agent:
        """Wait until it serves its first snapshot."""
        until(lambda: bool(_SERVING.search("\n".join(self.log))) or self.process.poll() is not None)
        found = _SERVING.search("\n".join(self.log))
        assert found, self.log
        self.url = found[1]
        until(lambda: self.get("/readyz")[0] == 200)
        return self

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, content type and text of a page."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.headers["Content-Type"], reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[2])

    def page(self) -> Page:
        """What it shows now."""
        return Page.of(self.get("/metrics")[2])

    def fresh(self) -> Page:
        """A page whose drain began after this call."""
        name, stage = "weir_agent_stage_duration_seconds_count", {"stage": "aggregate"}
        wanted = self.page().sum(name, **stage) + 2
        return self.page_when(lambda page: page.sum(name, **stage) >= wanted)

    def page_when(self, holds: Callable[[Page], bool], seconds: float = PATIENCE / 3) -> Page:
        """The first page for which ``holds``, or the last one in that time."""
        end = time.monotonic() + seconds
        while not holds(page := self.page()) and time.monotonic() < end:
            time.sleep(0.05)
        return page

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._lines = self.log
        self._log.close()


@contextlib.contextmanager
def own_instance() -> Iterator[str]:
    """A name for an instance of the test's own; unloaded at the end, and nothing of it may be left."""
    name = f"{PREFIX}{os.getpid()}-agent{next(_numbers)}"
    before = program_ids()
    try:
        yield name
    finally:
        done = weir("unload", "--instance", name)
    assert (done.returncode, done.stderr) == (0, ""), done
    nothing_left(name, before)


def sweep_instances() -> None:
    """Unloads what test runs left that were killed."""
    for left in mounts.RUN.glob(PREFIX + "*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            weir("unload", "--instance", left.name)


def nothing_left(instance: str, before: set[int] | None = None) -> None:
    """No pins, no files and (of those that are not in ``before``) no program of an instance."""
    assert not pins(instance).exists()
    assert not (mounts.RUN / instance).exists()
    assert not abandoned_mounts()
    if before is not None:
        until(lambda: not _unpinned(program_ids() - before))
        assert not _unpinned(program_ids() - before)


def abandoned_mounts() -> list[str]:
    """What is under /run/weir though nobody holds it and nothing is pinned."""
    if mounts.find("bpf") is None and not mounts.RUN.exists():
        return []
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((mounts.RUN / "lock").open("rb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return [str(path) for path in mounts.RUN.glob("*")]
        except BlockingIOError:
            return []  # another Weir is there
        point = mounts.RUN / "mnt/bpffs/weir"
        return [] if point.is_dir() and any(point.iterdir()) else [str(p) for p in mounts.RUN.rglob("*")]


def pins(instance: str) -> Path:
    """The instance's folder on bpffs, if there is one."""
    return (mounts.find("bpf") or Path("/sys/fs/bpf")) / "weir" / instance


def program_ids() -> set[int]:
    """Ids of all BPF programs that are loaded on this machine."""
    found: set[int] = set()
    last = 0
    while True:
        attr = bytearray(struct.pack("<III", last, 0, 0).ljust(128, b"\0"))
        last = _next_id(attr)
        if not last:
            return found
        found.add(last)


def _next_id(attr: bytearray) -> int:
    import ctypes

    buffer = (ctypes.c_char * 128).from_buffer(attr)
    try:
        machine.syscall("bpf", _PROG_NEXT_ID, buffer, 128)
    except FileNotFoundError:
        return 0
    return int(struct.unpack_from("<I", attr, 4)[0])


def _unpinned(ids: set[int]) -> set[str]:
    """Names of Weir's programs among ``ids``, without those of other instances that are pinned now."""
    from weir.kernel import plan
    from weir.kernel.options import KernelOptions

    variants = ("storage", "tracepoint", "kprobe")
    names = {p.name[:15] for v in variants for p in plan.programs(v, KernelOptions(), True)}
    names |= {p.name for p in plan.DISCOVERY}
    others = _pinned_ids()
    found = set()
    for number in ids - others:
        with contextlib.suppress(OSError):  # gone in the meantime
            fd = bpf.call(_PROG_FD_BY_ID, struct.pack("<III", number, 0, 0))
            name = bpf.program_info(fd).name
            os.close(fd)
            if name in names:
                found.add(f"{name} ({number})")
    return found


def _pinned_ids() -> set[int]:
    base = mounts.find("bpf")
    ids = set()
    for path in base.glob("weir/*/*/progs/*") if base else ():
        with contextlib.suppress(OSError):
            fd = bpf.get(str(path))
            text = Path(f"/proc/self/fdinfo/{fd}").read_text()
            os.close(fd)
            ids.add(int(re.search(r"prog_id:\s*(\d+)", text)[1]))
    return ids


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for it; the assertion that follows tells what was there."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
