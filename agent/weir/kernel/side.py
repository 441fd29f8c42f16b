# SPDX-License-Identifier: Apache-2.0
"""The kernel side as the long-lived agent holds it: pins only, no compiler, no bcc."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weir import errors
from weir.errors import KernelError, LoadError, PrivilegeError, WeirError
from weir.kernel import bpf, machine, mounts, refusal, sandbox, translations, trials
from weir.kernel.layout import RECORD, Array
from weir.kernel.maps import Maps
from weir.kernel.options import KernelOptions
from weir.kernel.pins import Instance
from weir.kernel.stats import MapFill, ProgramStats

_PACKAGE_ROOT = str(Path(__file__).parents[2])
#: What bpf/retire.h and bpf/requests.h take and return instead of a number.
_NOBODY, _IN_USE = 0xFFFFFFFF, 0xFFFFFFFE
_log = logging.getLogger("weir.kernel")


def ready(name: str) -> tuple[Instance, Path]:
    """The instance of that name and the cgroup v2 mount point; PrivilegeError when not root.

    KernelError on a machine that Weir does not know.
    """
    if why := machine.refusal():
        raise KernelError(why)
    if os.geteuid() != 0:
        raise PrivilegeError("Weir loads BPF programs and must be root: use sudo, or docker run --privileged")
    if cause := refusal.everything(sandbox.read()):
        raise PrivilegeError(str(cause))
    hold = mounts.Hold()
    try:
        return Instance(name, mounts.ensure("bpf"), hold=hold), mounts.ensure("cgroup2")
    except (WeirError, OSError):
        hold.release()
        raise


def load(instance: Instance, options: KernelOptions, cgroup2: Path) -> Mapping[str, Any]:
    """Run the loader process; the facts it wrote. Raises the WeirError that it met."""
    if options.udp and not trials.root_of_cgroup2(cgroup2):
        _log.warning("UDP is counted in this container only: %s is not the root of the host's cgroups;"
                     " see `weir check`", cgroup2)  # fmt: skip
    command = [sys.executable, "-m", "weir.kernel.loader", instance.name, str(instance.home.parents[1]),
               str(cgroup2), str(os.getpid())]  # fmt: skip
    done = subprocess.run(
        command, input=options.to_json(), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": _PACKAGE_ROOT},
    )  # fmt: skip
    return _reply(done)


def _reply(done: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    lines = done.stdout.strip().splitlines()
    try:
        reply = json.loads(lines[-1] if lines else "")
    except ValueError:
        if done.returncode < 0:
            raise KernelError(
                f"the loader was killed (signal {-done.returncode}); if that was for want of memory,"
                " it needs about 300 MB for a moment: start again"
            ) from None
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        if "No module named 'bcc'" in said:
            raise KernelError("python3-bpfcc is not installed: apt-get install python3-bpfcc") from None
        raise KernelError(f"the loader ended with code {done.returncode}: {said}") from None
    if "error" not in reply:
        return dict(reply)
    if reply.get("kind") == "LoadError":
        raise LoadError(reply["error"], reply["program"], reply["log"], reply["facts"])
    kind = getattr(errors, str(reply.get("kind")), WeirError)
    compiler = [line.strip() for line in done.stderr.splitlines() if " error: " in line]
    raise kind("; ".join([reply["error"], *compiler[:1]]))


class KernelSide:
    """An open kernel side. ``close`` leaves it counting; only ``Instance.remove`` ends it."""

    def __init__(self, instance: Instance) -> None:
        self.facts = instance.facts()
        self._pins = instance.pins
        self._slots = int(self.facts["options"]["slots"])
        self._planes: dict[str, str] = dict(self.facts.get("planes", {}))
        self._requests = int(self.facts["options"]["requests"])
        self.maps = Maps(instance.pins, self._slots, self._requests)
        self._links = self._open("links")
        self._programs = self._open("progs")

    def _open(self, part: str) -> dict[str, int]:
        return {p.name: bpf.get(str(p)) for p in sorted((self._pins / part).iterdir())}

    def read_counters(self) -> None:
        """Have the kernel add what live sockets gained to their slots, and queries that nobody answered."""
        for name in ("tcp_drain", "dns_expired"):
            if name in self._links:
                bpf.iterate(self._links[name])

    def fold_slot(self, index: int, into: int | None) -> bool:
        """Free a retiring slot, its counts going to another one; False if it is not idle (any more).

        ``into`` None lets the counts go with it.
        """
        if "slot_fold" not in self._programs:  # the kernel refused it: slots are not given back
            return False
        target = _NOBODY if into is None else into
        return bpf.run_raw(self._programs["slot_fold"], index, target) == 0

    def fold_requests(self, row: int, slot: int | None) -> int | None:
        """Free a retiring row, its counts going to the row like it of another slot (None: with it).

        The row that took them, None for none. BlockingIOError if the row is in use (again).
        """
        into = bpf.run_raw(self._programs["requests_fold"], row, _NOBODY if slot is None else slot)
        if into == _IN_USE:
            raise BlockingIOError(f"request row {row} is in use")
        return None if into == _NOBODY else into

    def forget_sessions(self) -> None:
        """Have every TLS session read anew: nobody was told what went over it for a while."""
        self.maps.forget_calls()
        for key in self.maps.sessions():
            bpf.run_raw(self._programs["tls_forget"], *key)

    def records(self, limit: int = 100_000) -> Array:
        """Live sockets for the views (``layout.RECORD``), at most about ``limit``."""
        parts = [np.empty(0, RECORD)]
        for name in ("tcp_records", "udp_records"):
            if name in self._links:
                raw = bpf.iterate(self._links[name], limit * RECORD.itemsize)
                parts.append(np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD))
        return np.concatenate(parts)[:limit]

    def programs(self) -> tuple[ProgramStats, ...]:
        """Run-time statistics of every program."""
        infos = ((name, bpf.program_info(fd)) for name, fd in self._programs.items())
        return tuple(
            ProgramStats(name, i.run_ns, i.runs, i.recursion_misses, i.verified_insns) for name, i in infos
        )

    def program_code(self) -> dict[str, tuple[int, bytes]]:
        """Program type and instructions of every loaded program, as the kernel runs them."""
        return {
            name: (bpf.program_info(fd).kind, bpf.program_code(fd)) for name, fd in self._programs.items()
        }

    def fill(self, slots_used: int, rows_used: int) -> tuple[MapFill, ...]:
        """How full the bounded maps are."""
        connections = int(self.facts["options"]["connections"])
        return (
            MapFill("slots", slots_used, self._slots),
            MapFill("connections", self.maps.tracked(), connections),
            *([MapFill("requests", rows_used, self._requests)] if self._requests else ()),
        )

    def program_fds(self) -> Mapping[str, int]:
        """Open programs by name; they stay this object's."""
        return dict(self._programs)

    @property
    def pins(self) -> Path:
        """The folder of its pins."""
        return self._pins

    def plane_down(self, plane: str, why: str) -> None:
        """Say of a plane that it does not work after all."""
        self._planes[plane] = why

    def planes(self) -> Mapping[str, str]:
        """Plane → "" or why it is down."""
        return dict(self._planes)

    def links(self) -> frozenset[str]:
        """Names of the links that are open."""
        return frozenset(self._links)

    def look_again(self) -> None:
        """Begin with what could not begin yet: translations, once connections are tracked here."""
        if "nat" not in self.facts.get("waits", ()) or any(name.startswith("nat_") for name in self._links):
            return
        why = translations.later(self._pins, self.maps.fd("nat"), self.facts["options"]["netns"])
        if why != translations.NOT_YET:
            self._planes["nat"] = why
        if not why:
            _log.info("connections are tracked here now: translations are seen through")
            for name in {p.name for p in (self._pins / "links").iterdir()} - self._links.keys():
                self._links[name] = bpf.get(str(self._pins / "links" / name))

    def close(self) -> None:
        """Close descriptors; counting goes on through the pins."""
        self.maps.close()
        for fd in (*self._links.values(), *self._programs.values()):
            os.close(fd)
        self._links.clear()
        self._programs.clear()
