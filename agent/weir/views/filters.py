# SPDX-License-Identifier: Apache-2.0
"""The filter language: words, ``key:value`` and ``!`` before either; a row must match all of them.

A word matches anywhere in process, container, unit, remote name, addresses, ports, protocol or state,
upper and lower case alike. ``"two words"`` are one word. Addresses take networks (``remote:10.0.0.0/8``),
ports take ranges (``port:8000-8999``).
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Sequence

from weir.errors import ConfigError
from weir.views.rates import Row, port
from weir.views.rows import ConnectionRow, EdgeRow

Match = Callable[[Row], bool]

_PLAIN = re.compile(r"[0-9a-fA-F.*]*:|\[")  # what is before the colon of an address


def _container(row: Row) -> list[str]:
    runtime = [row.runtime] if isinstance(row, EdgeRow) else []
    return [row.workload, row.container_id, *runtime] if row.kind == "container" else []


def _unit(row: Row) -> list[str]:
    if isinstance(row, EdgeRow) and row.unit:
        return [row.unit]
    return [row.workload] if row.kind == "unit" else []


def _remote_name(row: Row) -> list[str]:
    return [row.remote_workload] if isinstance(row, EdgeRow) else []


def _ports(row: Row) -> list[int]:
    both = [row.local_port, row.remote_port] if isinstance(row, ConnectionRow) else []
    return [port(row), *both]


_TEXTS: dict[str, Callable[[Row], Sequence[str]]] = {
    "name": lambda row: [row.workload],
    "process": lambda row: [row.process],
    "container": _container,
    "unit": _unit,
    "peer": _remote_name,
    "namespace": lambda row: [row.namespace, *([row.remote_namespace] if isinstance(row, EdgeRow) else [])],
    "pod": lambda row: [row.pod, *([row.remote_pod] if isinstance(row, EdgeRow) else [])],
    "service": lambda row: [row.service] if isinstance(row, EdgeRow) else [],
    "network": lambda row: [row.network_name] if isinstance(row, EdgeRow) else [],
    "kind": lambda row: [row.kind],
    "role": lambda row: [row.role],
    "proto": lambda row: [row.protocol],
    "state": lambda row: [row.state] if isinstance(row, ConnectionRow) else [],
}
_ADDRESSES: dict[str, Callable[[Row], Sequence[str]]] = {
    "local": lambda row: [row.local_address],
    "remote": lambda row: [row.remote_address],
    "address": lambda row: [row.local_address, row.remote_address],
}
_NUMBERS: dict[str, Callable[[Row], Sequence[int]]] = {
    "port": _ports,
    "pid": lambda row: [row.pid or 0],
    "netns": lambda row: [row.netns],
}
_ALIASES = {"protocol": "proto", "addr": "address", "workload": "name"}
KEYS = (*_TEXTS, *_ADDRESSES, *_NUMBERS)


def parse(text: str) -> Match:
    """The test that a row must pass; "" lets all pass. ConfigError, one line, says what is wrong."""
    tests = [_term(term) for term in _split(text)]
    return lambda row: all(test(row) for test in tests)


def _split(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = True, '"', "", ""
    try:
        return list(lexer)
    except ValueError:
        raise ConfigError(f'filter {text!r}: a " is not closed') from None


def _term(term: str) -> Match:
    if term.startswith("!"):
        if term == "!":
            raise ConfigError("filter: a word is missing after !")
        test = _term(term[1:])
        return lambda row: not test(row)
    key, colon, value = term.partition(":")
    key = _ALIASES.get(key.lower(), key.lower())
    if not colon or (key not in KEYS and _PLAIN.match(term)):
        return _word(term)
    if key not in KEYS:
        raise ConfigError(f"filter: no key {key!r}; there are {', '.join(KEYS)}")
    if not value:
        raise ConfigError(f"filter: a value is missing after {key}:")
    return _keyed(key, value)


def _keyed(key: str, value: str) -> Match:
    if key in _NUMBERS:
        return _number(key, value)
    if key in _ADDRESSES:
        return _address(key, value)
    of, wanted = _TEXTS[key], value.lower()
    return lambda row: any(wanted in text.lower() for text in of(row))


def _word(word: str) -> Match:
    wanted = word.lower().replace("[", "").replace("]", "")
    return lambda row: wanted in _haystack(row)


def _haystack(row: Row) -> str:
    texts = [text for of in _TEXTS.values() for text in of(row)]
    if isinstance(row, ConnectionRow):
        ends = [f"{row.local_address}:{row.local_port}", f"{row.remote_address}:{row.remote_port}"]
    else:
        ends = [row.local_address, row.remote_address, str(row.port)]
    return "\n".join([*texts, *ends]).lower()


def _number(key: str, value: str) -> Match:
    first, dash, last = value.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ConfigError(f"filter: {key}:{value}: a number or a range as in {key}:8000-8999 is needed")
    low, high, of = int(first), int(last or first), _NUMBERS[key]
    return lambda row: any(low <= number <= high for number in of(row))


def _address(key: str, value: str) -> Match:
    of = _ADDRESSES[key]
    if "/" not in value:
        return lambda row: any(value.lower() in text for text in of(row))
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ConfigError(f"filter: {key}:{value}: not a network such as 10.0.0.0/8") from None
    return lambda row: any(_within(text, network) for text in of(row))


def _within(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        found = ipaddress.ip_network(text)
    except ValueError:  # "*"
        return False
    if isinstance(found, ipaddress.IPv4Network):
        return isinstance(network, ipaddress.IPv4Network) and found.subnet_of(network)
    return isinstance(network, ipaddress.IPv6Network) and found.subnet_of(network)
