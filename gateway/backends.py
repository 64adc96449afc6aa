"""The model servers behind one or more names: who is there, who is well, who gets the next request.

Own code instead of gRPC's `dns:///` with `round_robin`, for three things that it cannot do: a server that swallows
calls without an answer gets no more of them than it already has (the least busy one is asked), a second attempt goes to
another server for certain, and a new address gets traffic without waiting for a connection to break.
"""

import itertools
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from gateway.breaker import Breaker
from gateway.metrics import Metrics

log = logging.getLogger("whence.backends")

PROBE_EVERY_S: Final = 0.25  # how often a resting server is looked at
REFUSED_S: Final = 1.0  # how long others are preferred to a server that said no
SILENCE_S: Final = 2.0  # a server that is silent this long may have swallowed a call
_TARGET: Final = re.compile(r"(?:dns:///)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\s,:/]+)):(?P<port>\d+)")


class Connection(Protocol):
    """A connection to one address."""

    def well(self) -> bool:
        """Whether the server at the other end has the model; asks it, briefly."""
        ...

    def close(self) -> None:
        """Close it; calls under way are cut off."""
        ...


C = TypeVar("C", bound=Connection)


@dataclass(eq=False)
class Backend(Generic[C]):
    """One model server."""

    address: str
    connection: C
    breaker: Breaker = field(default_factory=Breaker)
    busy: int = 0  # calls under way
    answered: float = -math.inf  # time.monotonic() of the last answer
    refused: float = -math.inf  # and of the last time it said no, or nonsense


def resolve(target: str) -> set[str]:
    """The addresses behind `target` (host:port or dns:///host:port) as "ip:port"; empty when the name is unknown.

    Where a name has IPv4 and IPv6 addresses only the former count: they are the same servers twice.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"{target!r} is no host:port")
    try:
        found = socket.getaddrinfo(match["v6"] or match["host"], int(match["port"]), type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("cannot resolve %s: %s", target, error)
        return set()
    four = {str(info[4][0]) for info in found if info[0] == socket.AF_INET}
    six = {f"[{info[4][0]!s}]" for info in found if info[0] == socket.AF_INET6}
    return {f"{ip}:{match['port']}" for ip in four or six}


def host_of(target: str) -> str:
    """The host in `target`: what the servers behind it call themselves."""
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"{target!r} is no host:port")
    return str(match["v6"] or match["host"])


class Backends(Generic[C]):
    """The pool. A thread of its own looks the names up, opens and closes connections, probes servers that rest.

    `connect` takes an address and the host name that it was found under.
    """

    def __init__(
        self,
        targets: Collection[str],
        connect: Callable[[str, str], C],
        *,
        metrics: Metrics,
        resolve_s: float,
        resolve: Callable[[str], set[str]] = resolve,
    ) -> None:
        self._targets = targets
        self._connect = connect
        self._metrics = metrics
        self._resolve_s = resolve_s
        self._resolve = resolve
        self._lock = threading.Lock()
        self._addresses: dict[str, set[str]] = {}  # target -> what it last resolved to
        self._backends: dict[str, Backend[C]] = {}
        self._leaving: list[Backend[C]] = []  # out of the names, but with calls under way
        self._turn = itertools.count()
        self._stop = threading.Event()
        self._refresh()
        self._thread = threading.Thread(target=self._keep_up, name="backends", daemon=True)
        self._thread.start()

    def all(self) -> list[Backend[C]]:
        """Every server known now."""
        with self._lock:
            return list(self._backends.values())

    @contextmanager
    def lend(self, avoid: Backend[C] | None = None) -> Iterator[Backend[C] | None]:
        """The least busy server that is well, other than `avoid`, for the time of the block; None if there is none.

        Who says no is quick and never busy: it would draw ever more requests if others were not preferred for a while.
        """
        lately = time.monotonic() - REFUSED_S
        with self._lock:
            well = [each for each in self._backends.values() if each.breaker.closed and each is not avoid]
            # Among equals take turns.
            start = next(self._turn) % len(well) if well else 0
            in_turn = well[start:] + well[:start]
            backend = min(in_turn, key=lambda each: (each.refused > lately, each.busy), default=None)
            if backend:
                backend.busy += 1
        try:
            yield backend
        finally:
            if backend:
                with self._lock:
                    backend.busy -= 1

    def succeeded(self, backend: Backend[C]) -> None:
        """Tell that `backend` answered."""
        backend.answered = time.monotonic()
        backend.breaker.success()

    def refused(self, backend: Backend[C]) -> None:
        """Tell that `backend` said no or something that cannot be: it is alive, but others may do better."""
        backend.refused = time.monotonic()

    def failed(self, backend: Backend[C], asked: float) -> None:
        """Tell that a call begun at `asked` (of time.monotonic()) failed by the fault of `backend`.

        If nothing at all came from it since then, and there is another one to ask, this one failure is enough.
        """
        silent = backend.answered < asked and time.monotonic() - asked >= SILENCE_S
        others = any(each.breaker.closed for each in self.all() if each is not backend)
        if backend.breaker.failure(at_once=silent and others):
            self._changed(backend, "open")

    def close(self) -> None:
        """Close all connections."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            gone = [*self._backends.values(), *self._leaving]
            self._backends, self._leaving = {}, []
        for backend in gone:
            backend.connection.close()

    def _changed(self, backend: Backend[C], state: str) -> None:
        if state == "open":
            log.warning("model server %s fails: no requests to it until it is well", backend.address)
        else:
            log.info("model server %s is well: requests to it again", backend.address)
        self._metrics.breaker_transitions.labels(state).inc()
        self._count_ready()

    def _count_ready(self) -> None:
        self._metrics.backend_ready.set(sum(each.breaker.closed for each in self.all()))

    def _keep_up(self) -> None:
        """The pool's thread: a look at the names every resolve_s, at resting servers more often."""
        refreshed = time.monotonic()
        while not self._stop.wait(min(PROBE_EVERY_S, self._resolve_s)):
            try:
                self._probe()
                self._part()
                if time.monotonic() >= refreshed + self._resolve_s:
                    refreshed = time.monotonic()
                    self._refresh()
            except Exception:
                log.exception("the look after the model servers failed")

    def _probe(self) -> None:
        for backend in self.all():
            if backend.breaker.wants_probe and backend.breaker.probed(backend.connection.well()):
                self._changed(backend, "closed")

    def _part(self) -> None:
        """Close the connections to servers that left, once nobody waits for them."""
        with self._lock:
            done = [backend for backend in self._leaving if not backend.busy]
            self._leaving = [backend for backend in self._leaving if backend.busy]
        for backend in done:
            backend.connection.close()

    def _refresh(self) -> None:
        """Make the pool what the names say now. A name without any address keeps those it had: DNS has bad days."""
        for target in self._targets:
            if addresses := self._resolve(target):
                self._addresses[target] = addresses
        found = {address: host_of(target) for target, known in self._addresses.items() for address in known}
        with self._lock:
            new = {
                address: Backend(address, self._connect(address, host))
                for address, host in found.items()
                if address not in self._backends
            }
            gone = [self._backends.pop(address) for address in self._backends.keys() - found.keys()]
            self._backends |= new
            self._leaving += gone
        if gone or new:
            log.info("model servers: %d, new: %d, gone: %d", len(found), len(new), len(gone))
        self._count_ready()
