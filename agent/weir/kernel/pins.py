# SPDX-License-Identifier: Apache-2.0
"""Where an instance's kernel side is pinned, and the locks that keep two Weirs apart.

``<bpffs>/weir/<instance>/v<ABI>/{maps,progs,links}/<name>``: the folder appears by a rename when
all of it is there, so a loader that was killed leaves ``v<ABI>-new``, which the next start removes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from weir.errors import BusyError, ConfigError, KernelError, PrivilegeError, WeirError
from weir.kernel import bpf, mounts
from weir.kernel.layout import ABI

#: Folders of this prefix under an instance's run folder are a loader's.
HEADERS = "headers-"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class Instance:
    """One named Weir on this host: its pins under bpffs and its files under ``/run/weir``."""

    def __init__(
        self, name: str, bpffs: Path, run: Path = mounts.RUN, hold: mounts.Hold | None = None
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--instance {name!r}: use 1 to 40 letters, digits, '-' and '_' (it names a folder)"
            )
        self.name = name
        self._hold = hold
        self.home = bpffs / "weir" / name
        self.pins = self.home / f"v{ABI}"
        self.fresh = self.home / f"v{ABI}-new"
        self.run = run / name
        self.state = self.run / "kernel.json"

    def loaded(self) -> bool:
        """Whether a whole kernel side is pinned: all that its loader pinned, and what it wrote about it.

        Objects of others under the same names do not count. KernelError where that cannot be told just now.
        """
        pinned = self.facts().get("pins")
        there = set(_listed(self.pins))  # more may have been attached since
        if not isinstance(pinned, dict) or not pinned or not pinned.keys() <= there:
            return False
        return all(_id(self.pins / path) == number for path, number in pinned.items())

    def _may_be_loaded(self) -> bool:
        try:
            return self.loaded()
        except KernelError:
            return True

    def facts(self) -> Mapping[str, Any]:
        """What the loader wrote about the pinned kernel side; empty if it is not known.

        KernelError where it cannot be read just now: what is pinned counts, and is not replaced for that.
        """
        try:
            facts = json.loads(self.state.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        except OSError as error:
            raise KernelError(
                f"cannot read {self.state}: {error.strerror}; mend that and start again"
            ) from None
        return facts if isinstance(facts, dict) else {}

    def prepare(self) -> Path:
        """An empty folder to pin into."""
        remove(self.fresh)
        try:
            for part in ("maps", "progs", "links", "uprobes"):
                (self.fresh / part).mkdir(parents=True)
        except OSError as error:
            raise PrivilegeError(
                f"cannot make folders in {self.home}: {error.strerror}; Weir pins its programs there,"
                " mount bpffs writable (mount -o remount,rw /sys/fs/bpf)"
            ) from None
        return self.fresh

    def publish(self, facts: Mapping[str, Any]) -> None:
        """Make the prepared folder the instance's kernel side; killed at any point it leaves none or all."""
        self.run.mkdir(parents=True, exist_ok=True)
        fresh = self.state.with_suffix(".new")
        fresh.write_text(
            json.dumps({**facts, "pins": {path: _id(self.fresh / path) for path in _listed(self.fresh)}}),
            encoding="utf-8",
        )
        remove(self.pins)
        fresh.rename(self.state)
        self.fresh.rename(self.pins)

    def drop_others(self) -> list[str]:
        """Unpin what Weirs with another ABI left; the names of the folders."""
        names = sorted(p.name for p in self.home.iterdir() if p not in (self.pins, self.fresh))
        for name in names:
            remove(self.home / name)
        return names

    def remove(self) -> bool:
        """Unpin everything, of every version; the kernel then drops programs and maps.

        Returns whether there was anything.
        """
        there = self.home.exists()
        remove(self.home)
        shutil.rmtree(self.run, ignore_errors=True)
        _rmdir(self.home.parent)
        self.leave()
        return there

    def leave(self) -> None:
        """Stop using Weir's mounts; nothing of this object may be used after it."""
        if self._hold:
            self._hold.release()
            self._hold = None

    @contextmanager
    def claim(self, who: str) -> Iterator[Path]:
        """Be the instance's only such process; BusyError if there is one. Freed by the kernel on any end.

        Gives the file that says so, which stays.
        """
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            file = open(self.run / f"{who}.lock", "a+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise PrivilegeError(f"cannot write {self.run}: {error.strerror}; run as root") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise BusyError(
                    f"weir {who} already runs for instance {self.name!r} (pid {file.read().strip() or '?'});"
                    " stop it, or choose another --instance NAME"
                ) from None
            with suppress(OSError):  # a full disk: who holds it is not said
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield Path(file.name)

    @contextmanager
    def lock(self, who: str) -> Iterator[None]:
        """Hold the instance, as :meth:`claim`, and leave nothing half made at the end."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self.claim(who))
            except (WeirError, OSError):
                self.leave()
                raise
            try:
                yield
            finally:
                self._sweep()
                if not self._may_be_loaded():  # a start that failed leaves nothing
                    file.unlink(missing_ok=True)
                    if who == "run" and not self.pins.exists():
                        shutil.rmtree(self.run, ignore_errors=True)
                    _rmdir(self.run)
                    self.leave()

    def _sweep(self) -> None:
        """Remove what a killed loader left."""
        with suppress(OSError):  # bpffs may be read-only
            remove(self.fresh)
        for headers in self.run.glob(HEADERS + "*"):
            shutil.rmtree(headers, ignore_errors=True)
        if not self.pins.exists():
            _rmdir(self.home)
            _rmdir(self.home.parent)


def _listed(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.glob("*/*"))


#: What bpf_obj_get says of a file that is no pin (kernel/bpf/inode.c), or of none.
_NO_PIN = {errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}


def _id(path: Path) -> int:
    """The kernel's number of what is pinned there, 0 for nothing; KernelError if that cannot be asked."""
    try:
        fd = bpf.get(str(path))
    except OSError as error:
        if error.errno in _NO_PIN:
            return 0
        raise KernelError(f"cannot open {path}: {error.strerror}; mend that and start again") from None
    try:
        return bpf.object_id(fd)
    except OSError as error:
        raise KernelError(f"cannot ask about {path}: {error.strerror}; mend that and start again") from None
    finally:
        os.close(fd)


def _rmdir(folder: Path) -> None:
    with suppress(OSError):  # something is still in it, or it is gone
        folder.rmdir()


def instances(bpffs: Path) -> list[str]:
    """Names of all instances that have something pinned."""
    base = bpffs / "weir"
    return sorted(p.name for p in base.iterdir()) if base.is_dir() else []


def remove(folder: Path) -> None:
    """Remove a folder of pins (bpffs has files and folders only); nothing if it is missing."""
    if not folder.exists():
        return
    for path, folders, files in os.walk(folder, topdown=False):
        for name in sorted(files):
            os.unlink(os.path.join(path, name))
        for name in folders:
            os.rmdir(os.path.join(path, name))
    folder.rmdir()
