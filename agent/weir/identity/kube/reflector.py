# SPDX-License-Identifier: Apache-2.0
"""List and watch of one resource, as the API's own clients do it.

https://kubernetes.io/docs/reference/using-api/api-concepts/: the list comes as the beginning of a watch, or
in pages where the server cannot do that, and gives a resource version; the watch goes on from there,
bookmarks renew it, and where it is too old (410 Gone) all is listed again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from weir.identity.kube.api import Api
from weir.identity.kube.objects import LIST_END, ListPage, Meta, Status, WatchEvent

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse as HTTPResponse

_log = logging.getLogger("weir.kube")
_PAGE = 500
_MAX_LINE = 8 << 20
#: What servers say that cannot stream a list: Kubernetes without the feature WatchList (before 1.32; 1.33).
_NOT_KNOWN = (400, 422)
_PARTIAL = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
#: A watch that begins with a list may last so many times longer: a server may be slow when all begin.
_FOR_A_LIST = 5
_list_pages, _events = msgspec.json.Decoder(ListPage), msgspec.json.Decoder(WatchEvent)
_statuses = msgspec.json.Decoder(Status)


class _Object(Protocol):
    metadata: Meta


T = TypeVar("T", bound=_Object)


class RequestError(Exception):
    """The API's answer was not what was asked for; ``code`` is the HTTP status, 0 where there was none.

    ``retry_after``: seconds, as a busy server asks for (429, API Priority and Fairness).
    """

    def __init__(self, code: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = min(retry_after, _LONGEST_WAIT)


@dataclass(frozen=True)
class Resource(Generic[T]):
    """What to watch. ``path`` is the collection's, ``name`` what RBAC calls it.

    ``put`` takes an object, ``delete`` a uid; ``known`` are the uids that a list must have, else they are
    deleted; ``at`` is told the resource version of all that came before. ``first`` is a field selector for
    what is listed before all, since it is wanted soonest; the rest waits for up to ``spread`` seconds.
    """

    name: str
    path: str
    kind: type[T]
    put: Callable[[T], None]
    delete: Callable[[str], None]
    known: Callable[[], set[str]]
    at: Callable[[str], None] = lambda _: None
    spread: Callable[[], float] = lambda: 0.0
    first: str = ""
    metadata_only: bool = False


class Reflector(threading.Thread, Generic[T]):
    """Keeps a sink up to date until stopped. Counters are read by others; only this thread writes them."""

    def __init__(
        self,
        api: Api,
        resource: Resource[T],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name=f"weir-{resource.name}", daemon=True)
        self._api = api
        self._resource = resource
        self._clock = clock
        self._jitter = jitter
        self._decoder = msgspec.json.Decoder(resource.kind)
        self._stopping = threading.Event()
        self._version = ""
        self._said = ""
        self._streams = True
        self.near = threading.Event()
        self.synced = threading.Event()
        self.heard = float("-inf")
        self.counts: Counter[str] = Counter()

    @property
    def resource(self) -> str:
        """Its name."""
        return self._resource.name

    def stop(self) -> None:
        """End when the server next says something; the thread is a daemon, so nobody has to wait for it."""
        self._stopping.set()

    def run(self) -> None:
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            try:
                if self._step():
                    wait = _FIRST_WAIT
                else:
                    self._pause(_FIRST_WAIT)
            except Exception as error:  # noqa: BLE001 whatever the network or the server does, it is tried again
                if self._stopping.is_set():
                    return
                self._failed(error)
                self._pause(max(wait, getattr(error, "retry_after", 0.0)))
                wait = min(2 * wait, _LONGEST_WAIT)

    def _pause(self, seconds: float) -> None:
        """Half as long to one and a half times as long: many agents may have failed at once."""
        self._stopping.wait(seconds * (0.5 + self._jitter()))

    def _step(self) -> bool:
        """One list, or one watch; whether anything was heard."""
        if self._version:
            return self._watch()
        if self._resource.first and not self.near.is_set():
            self._pages({"fieldSelector": self._resource.first, "resourceVersion": "0"}, set())
            self.near.set()
        self._stopping.wait(max(0.0, self._resource.spread() * self._jitter()))
        if self._streams:
            heard = self._list_and_watch()
            if self._streams:
                return heard
        self._list()
        return True

    def _failed(self, error: Exception) -> None:
        code = error.code if isinstance(error, RequestError) else 0
        if code == 410:
            self.counts["expired"] += 1
            self._version = ""
            return
        self.counts[f"http_{code}" if code else "unreachable"] += 1
        said = explain(self._resource.name, error)
        if said != self._said:
            _log.warning("%s", said)
        self._said = said

    def _list(self) -> None:
        """By pages; the watch goes on from there."""
        missing = self._resource.known()
        version = self._pages({"limit": str(_PAGE)}, missing)
        self._complete(missing, version)

    def _complete(self, missing: set[str], version: str) -> None:
        """All of a list was put; what it did not have is gone."""
        for uid in missing:
            self._resource.delete(uid)
        missing.clear()
        self._resource.at(version)
        self._version = version
        self.counts["lists"] += 1
        self._alive()
        self.near.set()
        self.synced.set()

    def _pages(self, query: dict[str, str], missing: set[str]) -> str:
        """List and put, and take what is found from ``missing``; the version to go on from."""
        while True:
            page = _list_pages.decode(self._body(query, "List"))
            for raw in page.items or ():
                item = self._decode(raw)
                if item is not None:
                    missing.discard(item.metadata.uid)
                    self._resource.put(item)
            if not page.metadata.cont:
                return page.metadata.resourceVersion
            query["continue"] = page.metadata.cont

    def _watch(self) -> bool:
        """Until the server ends it, which it does after some minutes; whether anything was heard."""
        return self._follow({"resourceVersion": self._version})

    def _list_and_watch(self) -> bool:
        """A watch that begins with all that there is (KEP-3157): neither side ever holds the whole list."""
        query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        query["resourceVersion"] = "" if self.synced.is_set() else "0"  # "0": as old as the server's cache is
        try:
            return self._follow(query, self._resource.known())
        except RequestError as error:
            if error.code not in _NOT_KNOWN:
                raise
            self._streams = False
            return False

    def _follow(self, more: dict[str, str], missing: set[str] | None = None) -> bool:
        """Take in events; those before the mark of the list's end are the list, if ``missing`` is given."""
        timeout = int(240 + 120 * self._jitter()) * (1 if missing is None else _FOR_A_LIST)
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(timeout), **more}
        response = self._request(query, "", timeout=400.0)
        heard = False
        try:
            for line in lines(response.stream(1 << 16, decode_content=True)):
                event = _events.decode(line)
                if missing is None:
                    self._event(event)
                elif self._initial(event, missing):
                    missing = None
                heard = True
                self._alive()
                if self._stopping.is_set():
                    break
        finally:
            response.close()
        return heard

    def _initial(self, event: WatchEvent, missing: set[str]) -> bool:
        """One event of a list that is streamed; whether it was the last one."""
        if event.type == "ERROR":
            self._event(event)
        item = self._decode(event.object)
        if item is None:
            return False
        if event.type == "DELETED":
            missing.discard(item.metadata.uid)
            self._resource.delete(item.metadata.uid)  # its version is not that of a whole list
        elif event.type != "BOOKMARK":
            missing.discard(item.metadata.uid)
            self._resource.put(item)
        elif (item.metadata.annotations or {}).get(LIST_END) == "true":
            self._complete(missing, item.metadata.resourceVersion)
            return True
        return False

    def _event(self, event: WatchEvent) -> None:
        if event.type == "ERROR":
            status = _statuses.decode(event.object)
            raise RequestError(status.code, status.message)
        item = self._decode(event.object)
        if item is None:
            return
        self._version = version = item.metadata.resourceVersion
        self.counts["events"] += 1
        if event.type == "DELETED":
            self._resource.delete(item.metadata.uid)
        elif event.type != "BOOKMARK":
            self._resource.put(item)
        self._resource.at(version)

    def _decode(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError:
            self.counts["undecodable"] += 1
            return None

    def _alive(self) -> None:
        self.heard = self._clock()
        self._said = ""

    def _body(self, query: dict[str, str], suffix: str) -> bytes:
        response = self._request(query, suffix, timeout=30.0)
        try:
            return response.read()
        finally:
            response.release_conn()

    def _request(self, query: dict[str, str], suffix: str, timeout: float) -> HTTPResponse:
        accept = _PARTIAL.format(suffix) if self._resource.metadata_only else "application/json"
        response = self._api.get(self._resource.path, query, accept, timeout)
        if response.status != 200:
            try:
                status = _statuses.decode(response.read(1 << 16))
            except msgspec.MsgspecError:
                status = Status()
            response.close()
            after = response.headers.get("Retry-After", "")
            raise RequestError(
                response.status, status.message or f"HTTP status {response.status}",
                float(after) if after.isdecimal() else 0.0,
            )  # fmt: skip
        return response


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines; RequestError for one that is longer than any object may be."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from filter(None, whole)
        if len(rest) > _MAX_LINE:
            raise RequestError(0, f"a line of more than {_MAX_LINE} bytes")


def explain(resource: str, error: Exception) -> str:
    """One line: what is missing, and what goes on without it."""
    code = error.code if isinstance(error, RequestError) else 0
    if code == 403:
        return (
            f"the API server forbids to list and watch {resource}: give Weir's service account the verbs list"
            f" and watch on {resource}; counting goes on without their names"
        )
    if code == 401:
        return f"the API server does not accept the credentials ({error}): counting goes on without names"
    return (
        f"the API server cannot be asked for {resource}: {error}; trying again, the names known so far stay"
    )
