# SPDX-License-Identifier: Apache-2.0
"""The terminal's views in a real terminal (tmux) of 80 × 24 and of 200 × 50, of an agent with traffic."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.kernel.agents import ASKING, Agent, command, environment, own_instance, until
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.test_http_servers import NGINX, NGINX_CONF, needed, running

SIZES = ((80, 24), (200, 50))
_URL = "http://127.0.0.1:{port}"
_LOOP = f"while :; do curl -s -o /dev/null {_URL}/none {_URL}/down; sleep 0.1; done"


class Terminal:
    """One tmux of the test's own, with one command in it."""

    def __init__(self, socket: Path, width: int, height: int, *words: str) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        env = environment(TERM="tmux-256color", LC_ALL="C.UTF-8")
        script = f"{shlex.join(words)}; echo ended; sleep 60"
        subprocess.run([*self._tmux, "new-session", "-d", "-x", str(width), "-y", str(height), script],
                       env=env, check=True, cwd="/")  # fmt: skip

    def screen(self) -> list[str]:
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def type(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def shows(self, *patterns: str) -> list[str]:
        """The screen, once all of these are on it."""
        until(lambda: all(re.search(pattern, "\n".join(self.screen())) for pattern in patterns))
        found = self.screen()
        text = "\n".join(found)
        assert [pattern for pattern in patterns if not re.search(pattern, text)] == [], text
        return found

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def place() -> Iterator[Netns]:
    with make_netns() as made:
        yield made


@pytest.fixture(scope="module")
def agent(place: Netns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Of a namespace where curl asks nginx all the time; every second answer is a 503."""
    needed("nginx", "curl", "tmux")
    home = tmp_path_factory.mktemp("nginx")
    (home / "html").mkdir()
    (home / "nginx.conf").write_text(NGINX_CONF.format(home=home, port=NGINX))
    with (
        running(place, NGINX, "nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")),
        own_instance() as name,
        Agent(name, [place], env=ASKING).ready() as made,
    ):
        loop = ["nsenter", f"--net={place.path}", "--", "sh", "-c", _LOOP.format(port=NGINX)]
        with subprocess.Popen(loop, start_new_session=True) as client:
            try:
                yield made
            finally:
                os.killpg(client.pid, 15)


@contextlib.contextmanager
def shown(agent: Agent, folder: Path, size: tuple[int, int], *words: str) -> Iterator[Terminal]:
    terminal = Terminal(folder / "tmux", *size, *command(*words, "--agent", agent.url))
    try:
        yield terminal
    finally:
        terminal.close()


def fits(screen: list[str], width: int) -> None:
    assert max(map(cell_len, screen)) <= width


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_top(agent: Agent, tmp_path: Path, size: tuple[int, int]) -> None:
    """Live; sorted by a key, connections by Tab, help by a question mark, and it ends by q."""
    with shown(agent, tmp_path, size, "top") as terminal:
        screen = terminal.shows(r"NAME .*REMOTE .*SERVICE .*TX/s▾", r"nginx .*← 127.0.0.1", r"\d+ pairs")
        fits(screen, size[0])
        assert ("PROCESS" in "\n".join(screen)) == (size[0] == 200)
        terminal.type("n")
        terminal.shows(r"NAME▾")
        terminal.type("?")
        terminal.shows(r"(?i)filter", r"(?i)pause")
        terminal.type("q")  # of the help
        terminal.shows(r"NAME▾")
        terminal.type("Tab")
        terminal.shows(r"STATE")
        terminal.type("q")
        terminal.shows(r"^ended|\nended")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_stat(agent: Agent, tmp_path: Path, size: tuple[int, int]) -> None:
    with shown(agent, tmp_path, size, "stat", "--interval", "1", "--watch") as terminal:
        screen = terminal.shows(r"NAME +PROTO .*SUCCESS +RPS", r"nginx +http .* 50\.\d\d%", r"curl +http")
        fits(screen, size[0])
        assert ("RTT" in "\n".join(screen)) == (size[0] == 200)
        assert not [line for line in screen if line and not re.match(r"(DIR|NAME|in|out|nginx|curl|…)", line)]


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_edges(agent: Agent, tmp_path: Path, size: tuple[int, int]) -> None:
    with shown(agent, tmp_path, size, "edges", "--interval", "1") as terminal:
        screen = terminal.shows(
            r"FROM +TO +PORT .*TX/s▾? .*SUCCESS", rf"curl +→ nginx.* {NGINX} .* 50\.\d\d%", "ended"
        )
        fits(screen, size[0])
        assert ("NETWORK" in "\n".join(screen)) == (size[0] == 200)
        assert sum("curl" in line for line in screen) == 1


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_tap(agent: Agent, tmp_path: Path, size: tuple[int, int]) -> None:
    """A line each, however narrow; it ends by Ctrl-C and says what it showed."""
    with shown(agent, tmp_path, size, "tap", "--instance", agent.instance, "--failures") as terminal:
        screen = terminal.shows(
            r"TIME .*METHOD +STATUS +TOOK .*TO +PATH", r"GET +503 +\d.* → nginx:8080 +/down"
        )
        fits(screen, size[0])
        assert ("FROM" in "\n".join(screen)) == (size[0] == 200)
        rows = [line for line in screen if line and not line.startswith("TIME")]
        assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in rows)
        terminal.type("C-c")
        terminal.shows(r"tap: [\d,]+ shown, [\d,]+ did not match")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_once_of_top(agent: Agent, tmp_path: Path, size: tuple[int, int]) -> None:
    with shown(agent, tmp_path, size, "top", "--once") as terminal:
        screen = terminal.shows(r"NAME .*REMOTE .*TX/s▾", r"curl .*→ 127.0.0.1", "ended")
        fits(screen, size[0])


def test_the_same_in_all_forms(agent: Agent) -> None:
    """JSON and CSV of top, stat and edges have the same rows; --watch goes on."""
    for words in (["top", "--interval", "0"], ["stat", "--interval", "0"], ["edges", "--interval", "0"]):
        told = {
            form: subprocess.run(command(*words, form, "--agent", agent.url), capture_output=True, text=True,
                                 check=True, env=environment(), cwd="/").stdout
            for form in ("--json", "--csv")
        }  # fmt: skip
        assert '"nginx"' in told["--json"]
        assert "nginx," in told["--csv"]
        assert told["--csv"].splitlines()[0].startswith("time,")
    words = ["edges", "--watch", "--json", "--interval", "0.3", "--agent", agent.url]
    watched = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True, env=environment(), cwd="/")
    with watched:
        assert watched.stdout is not None
        lines = [watched.stdout.readline() for _ in range(3)]
        watched.terminate()
    assert all('"seconds"' in line for line in lines)
