# SPDX-License-Identifier: Apache-2.0
"""Which functions of which TLS library are probed, and by which programs of ``bpf/weir_tls.c``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from weir.kernel.uprobes import Probe
from weir.tls import code, golang
from weir.tls.elf import Elf, ElfError, Function
from weir.tls.sites import Listing


@dataclass(frozen=True)
class Called:
    """A function: the program at its beginning, the one at each of its returns ("": none).

    ``forwards``: it may do no more than jump to another one of these, whose return is its own. ``once``: the
    program that does for both where a call is come by once (Go).
    """

    begins: str
    returns: str = ""
    forwards: bool = False
    once: str = ""


@dataclass(frozen=True)
class Library:
    """``functions`` by name; those of ``needed`` must be there, the others where a version has them."""

    name: str
    functions: Mapping[str, Called]
    needed: tuple[str, ...]


#: OpenSSL 1.1 and 3, BoringSSL, LibreSSL: SSL_write(3), SSL_read(3), SSL_do_handshake(3).
OPENSSL = Library(
    "openssl",
    {
        "SSL_write": Called("tls_write", "tls_return"),
        "SSL_write_ex": Called("tls_write_ex", "tls_return"),
        "SSL_read": Called("tls_read", "tls_return"),
        "SSL_read_ex": Called("tls_read_ex", "tls_return"),
        "SSL_do_handshake": Called("tls_handshake", "tls_return"),
        "SSL_connect": Called("tls_handshake", "tls_return", forwards=True),
        "SSL_accept": Called("tls_handshake", "tls_return", forwards=True),
        "SSL_free": Called("tls_free"),
    },
    ("SSL_write", "SSL_read", "SSL_free"),
)
#: gnutls_record_send(3); of what is given to gnutls_record_send_file nothing is read.
GNUTLS = Library(
    "gnutls",
    {
        "gnutls_record_send": Called("tls_write", "tls_return", forwards=True),
        "gnutls_record_send2": Called("tls_write", "tls_return"),
        "gnutls_record_recv": Called("tls_read", "tls_return"),
        "gnutls_handshake": Called("tls_handshake", "tls_return"),
        "gnutls_deinit": Called("tls_free"),
    },
    ("gnutls_record_send", "gnutls_record_recv", "gnutls_deinit"),
)
#: Go's crypto/tls, since Go 1.18.
GO = Library(
    "go",
    {
        "crypto/tls.(*Conn).Write": Called("go_write", "go_return", once="go_write_once"),
        "crypto/tls.(*Conn).Read": Called("go_read", "go_return"),
        "crypto/tls.(*Conn).Close": Called("go_close"),
        "crypto/tls.(*Conn).clientHandshake": Called("go_handshake"),
        "crypto/tls.(*Conn).serverHandshake": Called("go_handshake"),
    },
    ("crypto/tls.(*Conn).Write", "crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Close"),
)
#: Instead of a return's program where it is the function's own: the stack need not be looked at.
_LEAVE = "tls_leave"
#: Functions that one may end by jumping to, one after the other.
_PARTS = 16
#: Shared libraries by their files' names (also as Python's wheels rename them: libssl-0123abcd.so.1.1).
_SHARED = re.compile(r"lib(ssl|gnutls)(-[0-9a-f]+)?\.so(\.[0-9.]*)?")


def of_file_name(name: str) -> bool:
    """Whether a shared library of this name may be one of these."""
    return _SHARED.fullmatch(name) is not None


def probes(file: BinaryIO, once: bool = True) -> tuple[str, list[Probe]] | None:
    """The library that a file is or has linked into it, and where it is to be probed; None: it has none.

    ``once``: no probe is set twice; else only programs are taken to which a call that comes twice is one.
    :class:`ElfError` or :class:`code.CodeError` where it has one that cannot be probed.
    """
    elf = Elf(file)
    if golang.is_go(elf):
        found = golang.functions(elf, GO.functions)
        return (GO.name, list(_probes(elf, GO, found, once))) if found else None
    for library in (OPENSSL, GNUTLS):
        found = elf.functions(library.functions)
        if found:
            return library.name, list(_probes(elf, library, found, once))
    return None


def _probes(elf: Elf, library: Library, found: Mapping[str, Function], once: bool) -> Iterator[Probe]:
    if missing := [name for name in library.needed if name not in found]:
        raise ElfError(f"{library.name} without {', '.join(missing)}")
    begins: dict[int, str] = {}
    for name, function in found.items():
        called = library.functions[name]
        if begins.setdefault(function.address, called.begins) != called.begins:
            raise ElfError(f"{library.name}: {name} is another function, too")
    probes: set[tuple[int, str]] = set()
    for name, function in found.items():
        try:
            probes |= _of(elf, library.functions[name], function, once)
        except code.CodeError as error:
            raise code.CodeError(f"{library.name}: {name}: {error}") from None
    yield from (Probe(program, elf.offset(at)) for at, program in sorted(probes))


def _of(elf: Elf, called: Called, function: Function, once: bool) -> set[tuple[int, str]]:
    """(address, program) of one function."""
    parts = _parts(elf, function)
    ends = {at for part in parts.values() for at in part.returns}
    if called.returns and not ends and not called.forwards:
        raise code.CodeError("it never returns")
    begin, returns = function.address, called.returns
    if elf.machine == "x64" and ends <= parts[begin].returns:
        listing = Listing(elf.code(function), begin)
        if not called.begins.startswith("go_"):
            begin, returns, ends = listing.beginning(), _LEAVE, {listing.ending(at) for at in ends}
        elif (behind := listing.behind_stack_check()) is not None:
            if called.once and once:
                return {(behind, called.once)}
            begin = behind
    return {(begin, called.begins)} | ({(at, returns) for at in ends} if called.returns else set())


def _parts(elf: Elf, function: Function) -> dict[int, code.Exits]:
    """How execution leaves a function, and what it ends by jumping to, by their addresses."""
    found: dict[int, code.Exits] = {}
    waiting = [function]
    while waiting:
        part = waiting.pop()
        found[part.address] = left = code.exits(elf.code(part), part.address, elf.machine)
        for target in left.jumps - found.keys():
            other = elf.function_at(target)
            if other and len(found) + len(waiting) < _PARTS:  # else it is within a part, or in another file
                waiting.append(other)
    return found
