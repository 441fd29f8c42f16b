# SPDX-License-Identifier: Apache-2.0
"""Every system call of ``weir load`` fails once: it says so or does without, and nothing is left half done.

WEIR_FAULTS says how many of them, chosen by chance (19); ``all`` for every one; else those that a regular
expression finds.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator

import pytest

from tests.faults.inject import Call, Faults
from tests.kernel.agents import ASKING, own_instance, pins, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.netns import Netns
from weir.kernel.layout import DESTINATION, SOURCE
from weir.kernel.side import KernelSide, ready

#: What a load that failed may leave behind: its own cleaning up was what failed.
_CLEANING = ("unlink", "rmdir", "umount2", "unlinkat")
SAID, ANSWERED = b"a" * 1009, b"b" * 503


def chosen(sites: list[str], seed: int) -> list[str]:
    """Those to be tried: of all if there are enough, else some of each call."""
    wanted = os.environ.get("WEIR_FAULTS", "19")
    if wanted == "all":
        return sites
    if not wanted.isdigit():
        return [site for site in sites if re.search(wanted, site)]
    if int(wanted) >= len(sites):
        return sites
    return random.Random(seed).sample(sites, int(wanted))


class Once:
    """Fails the first call at one site."""

    def __init__(self, site: str = "") -> None:
        self.site, self.seen = site, dict[str, int]()

    def __call__(self, call: Call) -> int:
        self.seen[call.site] = self.seen.get(call.site, 0) + 1
        return call.error if call.site == self.site and self.seen[call.site] == 1 else 0


def told(stderr: str) -> str:
    """Why this is not how a user is told of a failure; "" if it is."""
    if "Traceback" in stderr:
        return "a traceback"
    lines = [line for line in stderr.splitlines() if line.startswith("weir: ")]
    return "" if len(lines) == 1 and len(lines[0]) > len("weir: ") + 5 else "not one line"


def counts(instance: str, talks: Dialogues, port: int) -> str:
    """Why what is loaded does not count this exactly; "" if it does, or says that it cannot."""
    one, _ = ready(instance)
    kernel = KernelSide(one)
    try:
        if kernel.planes()["tcp"]:
            return ""
        talks.once(port, [(CLIENT, SAID), (SERVER, ANSWERED)])
        kernel.read_counters()
        rows = kernel.maps.slots.view[kernel.maps.slots.used()]
        for role in (SOURCE, DESTINATION):
            mine = rows[(rows["key"]["role"] == role) & (rows["key"]["port"] == port)]
            found = tuple(
                int(mine[name].sum()) for name in ("sent_bytes", "received_bytes", "opened", "closed")
            )
            wanted = (*((1009, 503) if role == SOURCE else (503, 1009)), 1, 1)
            if found != wanted:
                return f"role {role}: {found} instead of {wanted}"
    finally:
        kernel.close()
        one.leave()
    return ""


def half(instance: str) -> bool:
    """Whether there are pins, but not all that the loader made."""
    if not pins(instance).exists():
        return False
    one, _ = ready(instance)
    try:
        return not one.loaded()
    finally:
        one.leave()


def attempt(site: str, netns: Netns, talks: Dialogues, port: int) -> str:
    """What is wrong after a load in which this failed; "" if all is well."""
    options = ("--netns", netns.name)
    with own_instance() as instance, Faults(Once(site)) as faults:
        done = weir("load", "--instance", instance, *options, wrap=faults.wrap, env=ASKING)
        if not faults.failed:
            return "it was not called"
        if done.returncode:
            if why := told(done.stderr):
                return f"{why}: {done.stderr}"
            if faults.failed[0].name not in _CLEANING and half(instance):
                return "it failed, and what it left is not whole"
        again = weir("load", "--instance", instance, *options, env=ASKING)
        if again.returncode:
            return f"the next one: {again.stderr}"
        return counts(instance, talks, port)


@pytest.fixture
def talks(netns: Netns) -> Iterator[Dialogues]:
    with Dialogues(netns) as made:
        yield made


def test_each_call_of_a_load_fails_once(netns: Netns, talks: Dialogues) -> None:
    watch = Once()
    with own_instance() as instance, Faults(watch) as faults:
        done = weir("load", "--instance", instance, "--netns", netns.name, wrap=faults.wrap, env=ASKING)
    assert done.returncode == 0, done
    seed, port = random.randrange(1 << 32), talks.listen()
    sites = chosen(list(watch.seen), seed)
    wrong = {}
    for site in sites:
        try:
            why = attempt(site, netns, talks, port)
        except AssertionError as error:
            why = f"left behind: {str(error)[:300]}"
        if why:
            wrong[site] = why
            print(f"{site}: {why}", flush=True)
    print(f"{len(sites)} of {len(watch.seen)} calls, seed {seed}")
    assert not wrong, "\n".join(f"{site}: {why}" for site, why in wrong.items())
