"""Traces of OpenTelemetry, for who asks for them: a span for each request, and in it one for each stage.

Needs the extra `tracing`. The standard OTEL_* variables say where the traces go and how many of them.
"""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span


LAST_S: Final = 2.0  # how long the end of the process may wait for the last spans to be sent


class Trace:
    """The spans of one request."""

    def __init__(self, tracing: "Tracing", span: "Span") -> None:
        self._tracing = tracing
        self._spans = [span]  # the request's own, then the stages that are under way

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span around the block."""
        span = self._tracing.child(name, self._spans[-1])
        self._spans.append(span)
        try:
            yield
        finally:
            self._spans.pop()
            span.end()

    @property
    def traceparent(self) -> str:
        """The innermost span, for whoever is called from it (W3C Trace Context)."""
        context = self._spans[-1].get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, route: str, method: str, status: int) -> None:
        """The request is answered."""
        span = self._spans[0]
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        span.end()


class Tracing:
    """Makes spans and sends them away, from a thread of its own."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Made last: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may say something else.
        ours = Resource({"service.name": "whence-gateway"}).merge(OTELResourceDetector().detect())
        resource = Resource.create(ours.attributes)
        # By itself it would send at exit for as long as it takes: 40 s measured with a collector that is silent.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        atexit.register(self.close)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("whence")
        self._trace = trace

    def begin(self, traceparent: str | None) -> Trace:
        """The trace of a request, inside the caller's if there is one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
        return Trace(self, self._tracer.start_span("request", context=caller, kind=SpanKind.SERVER))

    def child(self, name: str, parent: "Span") -> "Span":
        """A span in `parent`."""
        return self._tracer.start_span(name, context=self._trace.set_span_in_context(parent))

    def flush(self) -> None:
        """Send what is waiting."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is waiting, in LAST_S or not at all."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_S)


def from_settings(settings: Settings) -> Tracing | None:
    """Tracing, if it is on. Raises SettingsError when the extra is not installed."""
    if not settings.tracing:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError("WHENCE_TRACING is true, expected the extra `tracing` to be installed") from error
    return Tracing(OTLPSpanExporter())
