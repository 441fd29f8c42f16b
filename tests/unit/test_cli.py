# SPDX-License-Identifier: Apache-2.0
"""The command line itself: every example in the help is one that works, and shells can complete it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tests.kernel.agents import ROOT, environment
from weir.cli import cli


def _examples() -> Iterator[tuple[str, str]]:
    for name, command in cli.commands.items():
        for line in (command.epilog or "").splitlines():
            if line.startswith("  weir "):
                yield name, line.strip()


def test_every_command_has_examples() -> None:
    assert {name for name, _ in _examples()} == set(cli.commands)


@pytest.mark.parametrize(("name", "line"), list(_examples()))
def test_examples_are_commands(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as a shell would, up to a pipe or a file; options that there are not would be errors."""
    for variable in [key for key in os.environ if key.startswith("WEIR_")]:
        monkeypatch.delenv(variable)
    words = shlex.split(re.split(r" [|>]", line)[0], comments=True)
    assert words[:2] == ["weir", name]
    cli.commands[name].make_context(name, words[2:])
    assert len(line) <= 100


def test_help_fits_a_terminal() -> None:
    for name, command in cli.commands.items():
        text = command.get_help(click.Context(command, info_name=f"weir {name}", terminal_width=80))
        assert "Examples:" in text
        assert max(map(len, text.split("Examples:")[0].splitlines())) <= 80


def _weir(*arguments: str, **env: str) -> str:
    words = [sys.executable, "-m", "weir", *arguments]
    return subprocess.run(
        words, capture_output=True, text=True, check=True, env=environment(**env), cwd="/"
    ).stdout


@pytest.mark.parametrize(("typed", "offered"), [
    ("weir sta", ["stat"]),
    ("weir stat --by p", ["pod", "process", "pair"]),
    ("weir edges --d", ["--dot"]),
    ("weir completion z", ["zsh"]),
])  # fmt: skip
def test_bash_completes(typed: str, offered: list[str]) -> None:
    """A real bash, with what ``weir completion bash`` writes."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    words = typed.split()
    script = "\n".join([
        f'weir() {{ {shlex.quote(sys.executable)} -m weir "$@"; }}', f"export PYTHONPATH={ROOT}/agent",
        _weir("completion", "bash"), f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}",
        "export COMP_WORDS COMP_CWORD",
        # what the function does, with our own weir in place of the one that is installed
        'response=$(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _WEIR_COMPLETE=bash_complete weir)',
        'type _weir_completion >/dev/null && complete -p weir >/dev/null && echo "$response"',
    ])  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(shell: str) -> None:
    assert f"_WEIR_COMPLETE={shell}_complete" in _weir("completion", shell)
