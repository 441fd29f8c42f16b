# SPDX-License-Identifier: Apache-2.0
"""Probes on TLS libraries as these and their processes come, change and go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.agents import until
from tests.kernel.peers import tls_talk
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import ROOT
from tests.kernel.test_http_servers import needed, running, served
from tests.kernel.test_tls import (
    _SERVER,
    GNUTLS,
    PORT,
    by_port,
    folder,
    looking,
    own_libraries,
    place,
    probing,
    said,
    serving,
    tell,
    uses,
    watch,
)  # fmt: skip
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel import uprobes
from weir.kernel.layout import DESTINATION, SOURCE
from weir.tls import libraries
from weir.tls.watch import TlsWatch

pytestmark = pytest.mark.skipif(bool(uprobes.refusal()), reason=uprobes.refusal() or "-")
__all__ = ["folder", "place", "probing", "watch"]
#: Of probes that come and go under load; more for a soak.
ROUNDS = int(os.environ.get("WEIR_SOAK", "7"))


def test_probes_that_are_set_twice(watch: Watch, place: Netns, folder: Path, probing: TlsWatch) -> None:
    """As of a file with two names, which containers of one image give it."""
    command = (*own_libraries(folder), f"PYTHONPATH={ROOT}", sys.executable, "-m", tls_talk.__name__)
    peer = subprocess.Popen(["nsenter", f"--net={place.path}", "--", *command, str(folder), "blocking"],
                            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        until(lambda: uses(probing, peer.pid))
        with (folder / "lib/libssl.so.3").open("rb") as file:
            found = libraries.probes(file, once=False)
            assert found
            probing._uprobes.attach("00:0:1", file.fileno(), found[1])
        tell(peer, "begin")
        counts = json.loads(said(peer))
        answered, own = by_port(watch, place, counts)
    finally:
        probing._uprobes.detach("00:0:1")
        peer.kill()
        peer.communicate()
    assert answered == own
    nothing_lost(watch, "reset_unmatched")


@pytest.mark.parametrize("known", [False, True], ids=["", "probes that come again"])
def test_connections_older_than_the_probes(place: Netns, folder: Path, known: bool) -> None:
    """Are read from their next request on, but by an end that was waiting for that one in SSL_read."""
    with asking(place, nat="off", tls=1024) as watch:
        older_connections(watch, place, folder, known)


def older_connections(watch: Watch, place: Netns, folder: Path, known: bool) -> None:
    command = (*own_libraries(folder), f"PYTHONPATH={ROOT}", sys.executable, "-m", tls_talk.__name__)
    peer = subprocess.Popen(["nsenter", f"--net={place.path}", "--", *command, str(folder), "late"],
                            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        with looking(watch, place, wait=False) if known else contextlib.nullcontext() as before:
            if before:
                until(lambda: uses(before, peer.pid))
            tell(peer, "begin")
            assert said(peer) == "asked\n"
            if before:
                drop(before)
        tell(peer, "unheard")
        assert said(peer) == "asked\n"
        with looking(watch, place) as probing:
            until(lambda: uses(probing, peer.pid))
            watch.mark()
            tell(peer, "go on")
            counts = json.loads(said(peer))
            asked = {port: watch.requests(place, SOURCE, port) for port, *_ in counts}
            answered = {port: watch.requests(place, DESTINATION, port) for port, *_ in counts}
            peer.kill()
    finally:
        peer.kill()
        peer.communicate()
    own: dict[int, dict[tuple[str, str, int], int]] = {}
    for port, method, status, n in counts:
        own.setdefault(port, {})["http", method, status] = n
    assert asked == own
    missed = {port: Counter(own[port]) - Counter(found) for port, found in answered.items()}
    assert sum(sum(counter.values()) for counter in missed.values()) == tls_talk.CONNECTIONS
    assert {method for counter in missed.values() for _, method, _ in counter} == {"DELETE"}


def test_a_library_that_is_replaced(
    watch: Watch, place: Netns, folder: Path, probing: TlsWatch, tmp_path: Path
) -> None:
    """As by an upgrade: its users go on with the old one, who comes then has the new one."""
    needed("curl")
    home = tmp_path / "lib"
    shutil.copytree(folder / "lib", home)
    command = ("env", f"LD_LIBRARY_PATH={home}", sys.executable, "-c", _SERVER, str(folder))
    with running(place, PORT, *command, str(PORT)) as old:
        until(lambda: uses(probing, old.pid))
        shutil.copy(home / "libssl.so.3", home / "fresh")
        (home / "fresh").rename(home / "libssl.so.3")
        with running(place, GNUTLS, *command, str(GNUTLS)) as new:
            until(lambda: uses(probing, new.pid))
            assert probing.state().files == {"openssl": 2}
            for port in (PORT, GNUTLS):
                place.run("env", f"LD_LIBRARY_PATH={home}", "curl", "-sko", "/dev/null",
                          f"https://127.0.0.1:{port}/")  # fmt: skip
                assert served(watch, place, port) == {("http", "GET", 404): 1}
        until(lambda: probing.state().files == {"openssl": 1}, 15)


def test_a_library_that_is_written_to(place: Netns, folder: Path, probing: TlsWatch, tmp_path: Path) -> None:
    """Loses its probes at once, in use or not: other instructions may be there for the next process."""
    shutil.copytree(folder / "lib", tmp_path / "lib")
    command = (
        "env",
        f"LD_LIBRARY_PATH={tmp_path}/lib",
        sys.executable,
        "-c",
        _SERVER,
        str(folder),
        str(PORT),
    )
    with running(place, PORT, *command) as server:
        until(lambda: uses(probing, server.pid))
        os.utime(tmp_path / "lib/libssl.so.3", (1, 1))
        until(lambda: not probing._uprobes.files(), 0.9)
        assert not probing._uprobes.files()


def test_a_library_that_cannot_be_read(
    place: Netns, folder: Path, probing: TlsWatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Is told of once, and its processes go on."""
    needed("curl")
    home = tmp_path / "lib"
    home.mkdir()
    whole = bytearray((folder / "lib/libssl.so.3").read_bytes())
    at = whole.find(b"\0SSL_read\0")
    whole[at + 1 : at + 9] = b"SSL_reed"
    (home / "libssl-0a.so.3").write_bytes(whole)
    with running(place, PORT, "env", f"LD_PRELOAD={home}/libssl-0a.so.3", sys.executable, "-m", "http.server",
                 str(PORT)) as server:  # fmt: skip
        until(lambda: probing.state().refused == 1)
        assert "openssl without SSL_read" in "".join(str(vars(r).get("fields")) for r in caplog.records)
        place.run("curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{PORT}/")
        assert not uses(probing, server.pid)
        time.sleep(2.5)
        assert probing.state().refused == 1


def test_processes_that_are_killed_while_probed(
    watch: Watch, place: Netns, folder: Path, tmp_path: Path
) -> None:
    """Clients die at any moment, probes come and go; the server lives, and who is not killed ends well."""
    needed("nginx", "curl")
    command = ["nsenter", f"--net={place.path}", *own_libraries(folder), "curl", "-skf", "-o", "/dev/null",
               *(f"https://127.0.0.1:{PORT}/large" for _ in range(5))]  # fmt: skip
    ends: Counter[int] = Counter()
    with serving(place, folder, tmp_path) as server:
        for again in range(ROUNDS):
            with looking(watch, place, wait=False) as probing:
                until(lambda probing=probing: uses(probing, server.pid))  # type: ignore[misc]
                for n in range(13):
                    client = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # of -o only one is
                    if n % 3:
                        time.sleep((n + again) % 13 / 200)
                        client.kill()
                    elif n % 6 == 3:
                        drop(probing)
                    ends[client.wait()] += 1
                if again == ROUNDS - 1:
                    drop(probing)
        with looking(watch, place) as probing:
            until(lambda: uses(probing, server.pid))
            watch.mark()
            place.run(*command[2:])
            assert watch.requests(place, SOURCE, PORT) == {("http2", "GET", 200): 5}
            server.terminate()
            server.wait()
    assert set(ends) <= {0, -signal.SIGKILL}
    assert ends[0] >= ROUNDS * 5


def drop(probing: TlsWatch) -> None:
    """Take all probes away under the processes that use them."""
    for name in probing._uprobes.files():
        probing._uprobes.detach(name)
