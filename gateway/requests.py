"""The life of a request: its context at the beginning; its id, metrics, trace and line in the log at the end."""

import logging
import math
import time
from typing import Final

from flask import Flask, Response, request

from gateway import context
from gateway.errors import BadRequest
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracing import Tracing

log = logging.getLogger("whence.access")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"})


def install(app: Flask, settings: Settings, metrics: Metrics, tracing: Tracing | None) -> None:
    """Do this around every request of `app`."""

    @app.before_request
    def begin() -> None:
        now = context.begin(
            request.headers.get("X-Request-ID"),
            request.headers.get("traceparent"),
            settings.request_timeout_s,
            request.environ.get("gunicorn.socket"),
        )
        if tracing:
            now.trace = tracing.begin(now.traceparent)
        wished = request.headers.get("X-Request-Timeout")
        if wished is not None:
            now.deadline = context.Deadline(now.arrived + _timeout_s(wished, settings.max_request_timeout_s))

    @app.after_request
    def end(response: Response) -> Response:
        now = context.current()
        response.headers["X-Request-ID"] = now.request_id
        took_s = time.monotonic() - now.arrived
        route = request.url_rule.rule if request.url_rule else "unmatched"
        method = request.method if request.method in _METHODS else "other"
        metrics.requests.labels(route, method, response.status_code).inc()
        metrics.request_seconds.labels(route).observe(took_s)
        for stage, seconds in now.stages_s.items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        if now.trace:
            now.trace.end(route, method, response.status_code)
        if now.problem:
            metrics.rejected.labels(now.problem).inc()
        quiet = response.status_code < 400 and route in ("/healthz", "/readyz", "/metrics")
        log.log(
            logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": _fields(now, route, response, took_s)}
        )
        return response


def _fields(now: context.Context, route: str, response: Response, took_s: float) -> dict[str, object]:
    """One request as it is logged."""
    fields: dict[str, object] = {
        "request_id": now.request_id,
        "trace_id": now.trace_id,
        "client": now.client,
        "method": request.method[:16],
        "route": route,
        "status": response.status_code,
        "problem": now.problem,
        "duration_s": round(took_s, 4),
        "stages_s": {stage: round(seconds, 4) for stage, seconds in now.stages_s.items()},
        "received_bytes": now.received_bytes,
        "model_version": now.model_version,
        "cultures": now.cultures,
    }
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _timeout_s(text: str, most: float) -> float:
    """Seconds that X-Request-Timeout asks for, at most `most`. Raises BadRequest."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # true for NaN
        raise BadRequest("X-Request-Timeout is no number of seconds above 0")
    return min(seconds, most)
