# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from weir import cli
from weir.config import Settings, cgroup, networks, read_yaml
from weir.errors import ConfigError
from weir.kernel import netns

KNOWN = ("interval", "max_series", "port")


def yaml(tmp: Path, text: str) -> Path:
    path = tmp / "weir.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_keys_are_option_names(tmp_path: Path) -> None:
    path = yaml(tmp_path, "# mine\ninterval: 5\nmax-series: 2_000\nport: [80, 443]\n")
    assert read_yaml(path, KNOWN) == {"interval": 5, "max_series": 2000, "port": [80, 443]}
    assert read_yaml(yaml(tmp_path, ""), KNOWN) == {}
    assert read_yaml(yaml(tmp_path, "# nothing\n---\n"), KNOWN) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("intervall: 5", "line 1: unknown key 'intervall'; did you mean interval?"),
        ("\nMAX_SERIES: 5", "line 2: unknown key 'MAX_SERIES'; "),
        ("1: 5", "line 1: unknown key '1'; known keys: interval, max_series, port"),
        ("port: 1\nport: 2", "line 2: port is there twice"),
        ("max-series: 1\nmax_series: 2", "line 2: max_series is there twice"),
        ("a: b: c", "line 1: not YAML ("),
        ("port: [1", "not YAML ("),
        ("interval: !!python/object:os.system x", "not YAML ("),
        ("a", "KEY: VALUE"),
        ("a: 1\n---\nb: 2", "not YAML ("),
    ],
)
def test_yaml_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(yaml(tmp_path, text), KNOWN)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "none", KNOWN)
    (tmp_path / "latin").write_bytes(b"interval: \xe4")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 10\)"):
        read_yaml(tmp_path / "latin", KNOWN)


def test_every_setting_is_an_option_with_the_same_default() -> None:
    """So that the three ways to set one, and a library user's Settings(), agree."""
    options = {o.name: o for o in cli.run.params}
    defaults = cli.run.make_context("run", []).params
    for field in fields(Settings):
        option = options[field.name]
        assert defaults[field.name] == field.default, field.name
        assert option.envvar == "WEIR_" + field.name.upper()


def test_every_command_takes_the_scope() -> None:
    for name in ("run", "load", "top", "stat", "edges", "report", "tap"):
        assert {"netns", "cgroup", "port", "tcp"} <= {o.name for o in cli.cli.commands[name].params}


def test_settings_to_kernel_options(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/cgroup.procs").touch()
    settings = Settings(
        tcp="tracepoint", port=(443, 80, 443), cidr=("office=198.51.100.0/24",), cgroup=("/inner", "inner"),
        netns=("/proc/self/ns/net",), slots=128, max_connections=64, udp=False,
    )  # fmt: skip
    options = settings.kernel(tmp_path)
    assert (options.variant, options.ports, options.udp) == ("tracepoint", (80, 443), False)
    assert (options.slots, options.connections) == (128, 64)
    assert options.cgroups == (((tmp_path / "inner").stat().st_ino, str(tmp_path / "inner")),)
    assert options.netns == (Path("/proc/self/ns/net").stat().st_ino,)
    assert options.folds[-1].network == "198.51.100.0/24"
    assert Settings().kernel(tmp_path).netns == ()


def test_cgroup_by_whole_path_or_below_the_mount(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/cgroup.procs").touch()
    inode = (tmp_path / "a/b").stat().st_ino
    for text in ("a/b", "/a/b", str(tmp_path / "a/b")):
        assert cgroup(text, tmp_path) == (inode, str(tmp_path / "a/b"))
    for text in ("a", "/a", "none", ""):
        with pytest.raises(ConfigError, match="is no cgroup v2 folder"):
            cgroup(text, tmp_path)


def test_networks_pass_over_what_identity_refuses() -> None:
    assert [str(n) for n in networks(("a=10.0.0.0/8", "b=nonsense", "c", "d=fd00::/8"))] == [
        "10.0.0.0/8", "fd00::/8",
    ]  # fmt: skip


def test_namespace_by_path_number_or_name(tmp_path: Path) -> None:
    ours = Path("/proc/self/ns/net").stat().st_ino
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")
    assert netns.inode("blue", tmp_path) == ours
    assert netns.inode("/proc/self/ns/net") == ours
    assert netns.inode(str(ours)) == ours


@pytest.mark.parametrize("text", ["none", "/proc/self/ns/mnt", "/etc/passwd", "1", ""])
def test_what_is_no_namespace(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="give a name under"):
        netns.inode(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128Mi", 128 << 20),
        ("1Gi", 1 << 30),
        ("200M", 200_000_000),
        ("134217728", 1 << 27),
        ("0", 0),
        ("1.5Gi", 3 << 29),
    ],
)
def test_sizes_are_written_as_kubernetes_does(tmp_path: Path, text: str, size: int) -> None:
    """By option, and in YAML, where a number is one."""
    run = cli.cli.commands["run"]
    assert run.make_context("run", ["--max-memory", text]).params["max_memory"] == size
    path = yaml(tmp_path, f"max-memory: {text}\nmax-cpu: 0.05\n")
    params = run.make_context("run", ["--config", str(path)]).params
    assert (params["max_memory"], params["max_cpu"]) == (size, 0.05)
