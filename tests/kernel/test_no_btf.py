# SPDX-License-Identifier: Apache-2.0
"""A kernel without BTF: its installed headers do, or one line says what to install.

BTF is hidden from Weir in a mount namespace of its own; the kernel has it still.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.peers.netns import make_netns
from weir.kernel import installed

ROOT = Path(__file__).parents[2]
_HIDDEN = 'mount -t tmpfs hidden /sys/kernel/btf && {more} exec "$@"'


def hidden(*command: str, more: str = "", seconds: float = 540) -> subprocess.CompletedProcess[str]:
    """Run a command that finds no BTF; ``more`` is shell text that comes first."""
    shell = ["unshare", "-m", "--propagation", "private", "sh", "-c", _HIDDEN.format(more=more), "sh"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*shell, *command], cwd=ROOT, env=environment, text=True, capture_output=True, check=False,
        timeout=seconds,
    )  # fmt: skip


def test_one_line_names_the_package() -> None:
    release, name = os.uname().release, f"weirt-{os.getpid()}-nobtf"
    with make_netns() as alone:
        done = hidden(
            sys.executable, "-m", "weir", "load", "--instance", name, "--netns", alone.name,
            more="mkdir -p /lib/modules && mount -t tmpfs hidden /lib/modules &&",
        )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "BTF" in line]
    assert f"/lib/modules/{release}/build" in line
    assert installed.remedy(release) in line


def test_headers_do_instead() -> None:
    """TCP by kprobes and UDP, to the byte, from code that was made of the installed headers."""
    if installed.folder(os.uname().release) is None:
        pytest.skip(
            f"no headers of {os.uname().release} are installed (HEADERS=1 scripts/kernel 6.1 has some)"
        )
    done = hidden(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/kernel/test_tcp_bytes.py",
        "tests/kernel/test_udp.py", "-k",
        "v4 and (kprobe and (sendfile or send-v4 or reset or half) or each_way_of_sending and not kprobe)",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    print(done.stdout)
    assert " passed" in done.stdout.splitlines()[-1]
