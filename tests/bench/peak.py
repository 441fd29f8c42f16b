# SPDX-License-Identifier: Apache-2.0
"""Loads once and prints the loader process' largest resident size in bytes: ``peak NETNS VARIANT``."""

from __future__ import annotations

import resource
import sys

from tests.bench import agent


def main(netns: str, variant: str) -> None:
    """The loader is this process' only child."""
    with agent.loaded(netns=(int(netns),), variant=variant):
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
