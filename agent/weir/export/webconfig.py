# SPDX-License-Identifier: Apache-2.0
"""The file of ``--web-config``, checked: what of Prometheus's web configuration Weir understands.

The format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from weir.errors import ConfigError

_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_TLS = ("cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans", "min_version",
        "max_version")  # fmt: skip
_TOP = ("tls_server_config", "basic_auth_users")


@dataclass(frozen=True)
class Tls:
    """Files, and what is asked of clients; ``names``: of which a client's certificate must have one."""

    cert: Path
    key: Path
    ca: Path | None = None
    verify: ssl.VerifyMode = ssl.CERT_NONE
    names: frozenset[str] = frozenset()
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def context(self) -> ssl.SSLContext:
        """ConfigError where a file is no certificate or key, or they do not belong together."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version, made.maximum_version = self.lowest, self.highest
        try:
            made.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--web-config: {self.cert} and {self.key}: {_why(error)}") from None
        try:
            if self.ca:
                made.load_verify_locations(self.ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--web-config: client_ca_file {self.ca}: {_why(error)}") from None
        made.verify_mode = self.verify
        return made


@dataclass(frozen=True)
class WebConfig:
    """Users and the bcrypt hashes of their passwords; no ``tls``: plain text."""

    tls: Tls | None = None
    users: Mapping[str, bytes] = field(default_factory=dict)

    def stamp(self, path: Path) -> object:
        """What changes with the file, or with one that it names."""
        files = [path, *((self.tls.cert, self.tls.key, self.tls.ca) if self.tls else ())]
        return tuple(_stamp(file) for file in files if file)


def read(path: Path) -> WebConfig:
    """ConfigError with one line that says what, where and how to mend it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--web-config {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise ConfigError(f"--web-config {path}: {f'line {line}: ' if line else ''}no YAML") from None
    top = _mapping(path, "", raw or {}, _TOP)
    users = _mapping(path, "basic_auth_users", top.get("basic_auth_users") or {}, None)
    tls = top.get("tls_server_config")
    return WebConfig(
        _tls(path, _mapping(path, "tls_server_config", tls, _TLS)) if tls else None,
        {user: _hash(path, user, value) for user, value in users.items()},
    )


def _mapping(path: Path, where: str, value: Any, known: tuple[str, ...] | None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"--web-config {path}: {where or 'the file'} is to be a mapping")
    for key in value if known else ():
        if known and key not in known:
            place = f"{where}.{key}" if where else key
            raise ConfigError(
                f"--web-config {path}: {place} is not known to Weir; it knows {', '.join(known)}"
            )
    return value


def _hash(path: Path, user: str, value: Any) -> bytes:
    text = str(value).encode()
    if not user or ":" in user or len(text) != 60 or text[:4] not in (b"$2a$", b"$2b$", b"$2y$"):
        raise ConfigError(
            f"--web-config {path}: basic_auth_users: {user!r} is to be followed by a bcrypt hash;"
            " `htpasswd -nBC 10 USER` makes one"
        )
    return text


def _tls(path: Path, raw: Mapping[str, Any]) -> Tls:
    files = {}
    for name in ("cert_file", "key_file", "client_ca_file"):
        given = raw.get(name)
        if given and not isinstance(given, str):
            raise ConfigError(f"--web-config {path}: tls_server_config.{name} is to be a file's path")
        files[name] = path.parent / given if given else None
    cert, key, ca = files["cert_file"], files["key_file"], files["client_ca_file"]
    if not cert or not key:
        raise ConfigError(f"--web-config {path}: tls_server_config needs cert_file and key_file")
    verify = _choice(path, raw, "client_auth_type", _AUTH, "NoClientCert")
    if verify is not ssl.CERT_NONE and not ca:
        raise ConfigError(f"--web-config {path}: client_auth_type needs client_ca_file")
    if ca and verify is ssl.CERT_NONE:
        raise ConfigError(
            f"--web-config {path}: client_ca_file needs client_auth_type, such as {[*_AUTH][-1]}"
        )
    names = raw.get("client_allowed_sans") or []
    if not isinstance(names, list) or (names and verify is not ssl.CERT_REQUIRED):
        raise ConfigError(f"--web-config {path}: client_allowed_sans is a list, with {[*_AUTH][-1]}")
    lowest, highest = (_choice(path, raw, f"{end}_version", _VERSIONS, known)
                       for end, known in (("min", "TLS12"), ("max", "TLS13")))  # fmt: skip
    if lowest > highest:
        raise ConfigError(f"--web-config {path}: min_version is above max_version")
    return Tls(cert, key, ca, verify, frozenset(map(str, names)), lowest, highest)


def _choice(path: Path, raw: Mapping[str, Any], name: str, known: Mapping[str, Any], default: str) -> Any:
    given = str(raw.get(name, default))
    if given not in known:
        raise ConfigError(f"--web-config {path}: {name} {given!r} is none of {', '.join(known)}")
    return known[given]


def _why(error: Exception) -> str:
    """In a few words: OpenSSL's, or the system's."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _no_password() -> str:
    raise ValueError("the key is encrypted; Weir reads keys without a password")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
