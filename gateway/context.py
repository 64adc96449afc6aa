"""What one request carries from its first byte to its log line: id, deadline, trace, where its time went."""

import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from flask import g

from gateway.tracing import Trace

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, section 3.2: version-traceid-parentid-flags; all zeros is no id; version ff is forbidden.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Deadline:
    """The one budget of a request. All times are of time.monotonic()."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """`seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self.at


@dataclass
class Context:
    """One request. Filled while it is worked on, read by its log line and its metrics."""

    request_id: str
    deadline: Deadline
    traceparent: str | None = None  # the caller's
    trace: Trace | None = None  # ours, when tracing is on
    arrived: float = field(default_factory=time.monotonic)
    stages_s: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    model_version: int | None = None
    cultures: list[str] = field(default_factory=list)
    received_bytes: int = 0
    client: str | None = None  # whose API key came with it
    headers: dict[str, str] = field(default_factory=dict)  # of the answer
    sock: socket.socket | None = None  # of the client; only gunicorn tells

    @property
    def trace_id(self) -> str | None:
        """The trace that this request belongs to."""
        parent = self.span_here
        return parent.split("-")[1] if parent else None

    @property
    def span_here(self) -> str | None:
        """What to tell whoever is called from here: our own span, or the caller's when we make none."""
        return self.trace.traceparent if self.trace else self.traceparent

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage `name`."""
        start = time.perf_counter()
        try:
            with self.trace.stage(name) if self.trace else nullcontext():
                yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + time.perf_counter() - start


def begin(
    request_id: str | None, traceparent: str | None, timeout_s: float, sock: socket.socket | None = None
) -> Context:
    """The context of the request that is being handled now. Unsafe ids and traces are replaced and dropped."""
    safe = request_id if request_id and _SAFE_ID.fullmatch(request_id) else uuid.uuid4().hex
    trace = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    g.whence = Context(safe, Deadline.after(timeout_s), trace, sock=sock)
    return current()


def current() -> Context:
    """The context of the request that is being handled now."""
    context: Context = g.whence
    return context
