# SPDX-License-Identifier: Apache-2.0
"""What a start finds: a loader that was killed, pins of another version, parts that are missing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.kernel.agents import Agent, both, command, environment, nothing_left, pins, weir
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import tcp_pair
from weir.kernel import bpf, mounts
from weir.kernel.layout import ABI

SENT = "weir_tcp_sent_bytes_total"


def counts(instance: str, netns: Netns, *options: str) -> list[str]:
    """An agent starts and counts to the byte; its log."""
    with Agent(instance, (netns,), *options).ready() as agent, tcp_pair(netns, netns) as pair:
        pair.run("send", 1009)
        page = agent.page_when(lambda p: both(p, SENT, pair.port) == (1009, 1009))
        assert both(page, SENT, pair.port) == (1009, 1009)
        assert agent.terminate() == 0
    return agent.log


def _children(parent: int) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(parent).children() if "weir.kernel.loader" in p.cmdline()]
    except psutil.Error:
        return []


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd="/",
    )


def _header_trees() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("weir-headers-*"))


def test_the_loader_is_killed(instance: str, netns: Netns) -> None:
    """`weir load` says so in one line; nothing it left is in the way; the next start counts."""
    trees = _header_trees()
    for moment in (0.0, *(random.uniform(0.1, 1.2) for _ in range(4))):
        loading = _start("load", "--instance", instance, "--netns", netns.name)
        while loading.poll() is None and not (found := _children(loading.pid)):
            time.sleep(0.002)
        time.sleep(moment)
        for loader in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                loader.kill()
        out, err = loading.communicate(timeout=60)
        if loading.returncode:  # else it was done before
            assert (loading.returncode, out) == (4, "")
            assert len(err.splitlines()) == 1
            assert "the loader was killed (signal 9)" in err
            nothing_left(instance)
    assert counts(instance, netns)
    assert _header_trees() <= trees


def test_the_agent_is_killed_while_it_starts(instance: str, netns: Netns) -> None:
    """Its loader does not stay behind to be in the way of the next agent, which starts at once."""
    for moment in (random.uniform(0.3, 1.8) for _ in range(5)):
        starting = _start("run", "--instance", instance, "--netns", netns.name, "--listen", "127.0.0.1:0")
        time.sleep(moment)
        assert starting.poll() is None, starting.communicate()
        starting.kill()
        starting.communicate(timeout=60)
    assert counts(instance, netns)


def test_a_killed_loader_leaves_nothing_that_unload_does_not_take(instance: str, netns: Netns) -> None:
    loading = _start("load", "--instance", instance, "--netns", netns.name)
    while loading.poll() is None and not (pins(instance) / f"v{ABI}-new").exists():
        time.sleep(0.001)
    for loader in _children(loading.pid):
        loader.kill()
    loading.communicate(timeout=60)
    assert pins(instance).exists() == (weir("unload", "--instance", instance).stdout == "removed\n")
    nothing_left(instance)


def test_unload_takes_everything(instance: str, netns: Netns) -> None:
    assert "loaded: TCP by storage, " in weir("load", "--instance", instance, "--netns", netns.name).stdout
    assert pins(instance).exists()
    done = weir("unload", "--instance", instance)
    assert (done.returncode, done.stdout, done.stderr) == (0, "removed\n", "")
    nothing_left(instance)
    assert weir("unload", "--instance", instance).stdout == "nothing was loaded\n"


def test_other_options_replace_the_kernel_side(instance: str, netns: Netns) -> None:
    assert any("kernel side loaded" in line for line in counts(instance, netns))
    assert any("using the pinned kernel side" in line for line in counts(instance, netns))
    log = counts(instance, netns, "--slots", "128")
    assert any("level=warning" in line and "the kernel side is replaced" in line for line in log)
    facts = json.loads((mounts.RUN / instance / "kernel.json").read_text())
    assert facts["options"]["slots"] == 128


def _garble(instance: str) -> None:
    (mounts.RUN / instance / "kernel.json").write_text('{"digest": "')


def _no_link(instance: str) -> None:
    (pins(instance) / f"v{ABI}/links/tcp_state").unlink()


def _no_slots(instance: str) -> None:
    (pins(instance) / f"v{ABI}/maps/slots").unlink()


def _no_run_folder(instance: str) -> None:
    shutil.rmtree(mounts.RUN / instance)


def _replace(where: str, fd: int) -> None:
    """Somebody else's object under a name of ours."""
    pin = Path(where)
    pin.unlink()
    bpf.pin(fd, str(pin))
    os.close(fd)


def _foreign_map(instance: str) -> None:
    """Of another layout: mapped, it would be read beyond its end."""
    fd = bpf.map_create(2, 4, 8, 1, 1 << 10, "foreign")  # BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE
    _replace(str(next(pins(instance).glob("*/maps/slots"))), fd)


def _same_layout(instance: str) -> None:
    """A map that only looks like ours."""
    path = next(pins(instance).glob("*/maps/slots"))
    mine = bpf.get(str(path))
    kind, key, value, entries, flags = bpf.map_info(mine)
    os.close(mine)
    _replace(str(path), bpf.map_create(kind, key, value, entries, flags, "foreign"))


def _foreign_program(instance: str) -> None:
    one, other = (next(pins(instance).glob(f"*/progs/{name}")) for name in ("tcp_drain", "slot_fold"))
    _replace(str(other), bpf.get(str(one)))


def _foreign_link(instance: str) -> None:
    one, other = (next(pins(instance).glob(f"*/links/{name}")) for name in ("tcp_drain", "tcp_records"))
    _replace(str(other), bpf.get(str(one)))


def _folder(instance: str) -> None:
    pin = next(pins(instance).glob("*/maps/slots"))
    pin.unlink()
    pin.mkdir()


DAMAGES = [
    _foreign_map,
    _same_layout,
    _foreign_program,
    _foreign_link,
    _folder,
    _garble,
    _no_link,
    _no_slots,
    _no_run_folder,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.strip("_"))
def test_a_damaged_state_is_replaced(instance: str, netns: Netns, damage: Callable[[str], None]) -> None:
    assert weir("load", "--instance", instance, "--netns", netns.name).returncode == 0
    damage(instance)
    log = counts(instance, netns)
    assert any("level=warning" in line and "replaced" in line for line in log), log


@pytest.mark.parametrize("pinned", [False, True], ids=["old only", "beside ours"])
def test_pins_of_another_version_go(instance: str, netns: Netns, pinned: bool) -> None:
    """Weir was replaced by one with another ABI: what the old one pinned must not count for ever."""
    if pinned:
        assert weir("load", "--instance", instance, "--netns", netns.name).returncode == 0
    else:
        assert weir("load", "--instance", instance, "--netns", netns.name, "--slots", "64").returncode == 0
        (pins(instance) / f"v{ABI}").rename(pins(instance) / "v0")
    old = pins(instance) / "v0" / "maps"
    old.mkdir(parents=True, exist_ok=True)
    fd = bpf.get(str(next(pins(instance).glob("*/maps/tracked"))))
    bpf.pin(fd, str(old / "more"))
    log = counts(instance, netns)
    assert [p.name for p in pins(instance).iterdir()] == [f"v{ABI}"]
    assert any("pins of another version of Weir removed: v0" in line for line in log), log


def test_stop_while_loading(instance: str, netns: Netns) -> None:
    """SIGTERM before the first snapshot: a clean end all the same."""
    starting = _start("run", "--instance", instance, "--netns", netns.name, "--listen", "127.0.0.1:0")
    while not _children(starting.pid) and starting.poll() is None:
        time.sleep(0.002)
    starting.send_signal(signal.SIGTERM)
    _, err = starting.communicate(timeout=60)
    assert starting.returncode == 0, err
    assert "stopped" in err.splitlines()[-1]
