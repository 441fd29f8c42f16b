# SPDX-License-Identifier: Apache-2.0
"""Prometheus' HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

from weir.errors import ConfigError, WeirError

_MAX_BYTES = 256 << 20  # of one answer


@dataclass(frozen=True)
class Where:
    """A Prometheus, and how to be let in; files are read at each question, since tokens change."""

    url: str
    token_file: str = ""
    ca_file: str = ""


class Point(NamedTuple):
    """Labels of one series, and its (time, value) pairs; of a native histogram (time, buckets)."""

    labels: dict[str, str]
    values: list[tuple[float, float]]
    histograms: list[tuple[float, dict[str, float]]]


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirection: what lets us in is for that server only."""

    def redirect_request(self, *_: Any) -> None:
        """The answer is an error then, with its status."""


class Client:
    """Questions to one server. WeirError, one line, where it cannot be asked."""

    def __init__(self, where: Where, timeout: float = 60.0) -> None:
        """ConfigError for an address that is none, or a certificate file that cannot be read."""
        parts = urlsplit(where.url if "//" in where.url else f"http://{where.url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--prometheus {where.url}: an address such as http://127.0.0.1:9090 is needed")
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        self._token = Path(where.token_file) if where.token_file else None
        self._basic = ""
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._basic = base64.b64encode(user.encode()).decode()
        self._timeout = timeout
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _Stay()]
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=where.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"--ca-file {where.ca_file}: {error}") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def instant(self, expr: str, at: float) -> list[Point]:
        """The expression at one time."""
        return self._points("query", query=expr, time=f"{at:.3f}")

    def range(self, expr: str, start: float, end: float, step: float) -> list[Point]:
        """The expression at ``start``, and every ``step`` seconds until ``end``."""
        return self._points(
            "query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:g}"
        )

    def _points(self, what: str, **form: str) -> list[Point]:
        answer = self._asked(what, form)
        try:
            return [_point(row) for row in answer["data"]["result"]]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise WeirError(f"{self.url}: an answer that is none of Prometheus' ({error})") from None

    def _asked(self, what: str, form: dict[str, str]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v1/{quote(what)}", urlencode(form).encode(), self._headers()
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                body = reply.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise WeirError(f"Prometheus at {self.url}: {_problem(error)}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeirError(f"Prometheus at {self.url} cannot be reached ({reason})") from None
        if len(body) > _MAX_BYTES:
            raise WeirError(f"Prometheus at {self.url}: an answer of more than {_MAX_BYTES >> 20} MiB")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise WeirError(f"{self.url}: no JSON; is this a Prometheus?") from None

    def _headers(self) -> dict[str, str]:
        if self._token:
            try:
                return {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            except (OSError, UnicodeDecodeError) as error:
                raise WeirError(f"--token-file {self._token}: {error}") from None
        return {"Authorization": f"Basic {self._basic}"} if self._basic else {}


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read(4096))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        said = error.reason
    return f"{said} (HTTP {error.code})"


def _point(row: dict[str, Any]) -> Point:
    values = row.get("values") or ([row["value"]] if "value" in row else [])
    told = row.get("histograms") or ([row["histogram"]] if "histogram" in row else [])
    histograms = [
        (float(at), {str(upper): float(count) for _, _, upper, count in histogram.get("buckets") or ()})
        for at, histogram in told
    ]
    return Point(dict(row["metric"]), [(float(at), float(value)) for at, value in values], histograms)
