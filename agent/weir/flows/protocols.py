# SPDX-License-Identifier: Apache-2.0
"""What protocols call what the kernel counted: methods, statuses, and whether a status is a failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weir.kernel.layout import METHODS, PROTOCOLS, REDIS_METHODS, SQL_METHODS

SUCCESS, FAILURE, UNKNOWN = "success", "failure", "unknown"
OTHER = "_OTHER"

#: https://www.iana.org/assignments/dns-parameters: types that are asked for.
_DNS_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 251: "IXFR",
    252: "AXFR", 255: "ANY",
}  # fmt: skip
_DNS_CODES = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
)  # fmt: skip
#: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: Those that are the server's fault, as OpenTelemetry's conventions for gRPC have it.
_GRPC_FAILED = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_PLAIN_CODES = ("OK", "ERROR")
_NOT_KNOWN = len(_GRPC_CODES) + 1


@dataclass(frozen=True)
class Words:
    """A protocol's words for numbers in a row; no answer (status 0) is "" and a failure in all of them."""

    method: Callable[[int], str]
    status: Callable[[int], str]
    failed: Callable[[int], bool]


def _of(known: Sequence[str], number: int) -> str:
    """A word by its number; OTHER for one that there is not."""
    return known[number] if 0 <= number < len(known) else OTHER


def _http_method(number: int) -> str:
    return _of(METHODS, number)


def _dns_code(status: int) -> str:
    code = status - 1
    return _DNS_CODES[code] if code < len(_DNS_CODES) else f"RCODE{code}"


def _grpc_code(status: int) -> str:
    code = status - 1
    return _GRPC_CODES[code] if code < len(_GRPC_CODES) else f"CODE{code}"


#: That a name does not exist (NXDOMAIN) is an answer; that a server answers "no" (4xx) is, too.
_SQL = Words(
    lambda n: _of(SQL_METHODS, n), lambda status: _of(_PLAIN_CODES, status - 1), lambda status: status != 1
)
_WORDS = {
    "http": Words(_http_method, str, lambda status: status >= 500),
    "http2": Words(_http_method, str, lambda status: status >= 500),
    "grpc": Words(lambda _: "", _grpc_code, lambda status: _grpc_code(status) in _GRPC_FAILED),
    "redis": Words(
        lambda n: _of(REDIS_METHODS, n),
        lambda status: _of(_PLAIN_CODES, status - 1),
        lambda status: status != 1,
    ),
    "postgresql": _SQL,
    "mysql": _SQL,
    "dns": Words(lambda n: _DNS_TYPES.get(n, OTHER), _dns_code, lambda status: status - 1 not in (0, 3)),
}


def words(protocol: int, method: int, status: int) -> tuple[str, str, str, str]:
    """Protocol, method, status and outcome of a row, as labels have them."""
    name = _of(PROTOCOLS, protocol)
    known = _WORDS.get(name)
    if known is None:
        return name, "", "", UNKNOWN
    if name == "grpc" and status == _NOT_KNOWN:
        return name, "", "", UNKNOWN
    if not status:
        return name, known.method(method), "", FAILURE
    outcome = FAILURE if known.failed(status) else SUCCESS
    return name, known.method(method), known.status(status), outcome
