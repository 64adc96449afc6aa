"""Every number for Prometheus, named once: TensorFlow Serving's own names where it has one, else `whence_server_*`.

Its latencies are in microseconds and its counters lack `_total`; dashboards made for it work here unchanged.
"""

import threading
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric

_MICROSECONDS: Final = tuple(10 * 1.8**n for n in range(33))  # its util.cc
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class _Count:
    """A counter whose name does not end in `_total`, which prometheus_client would not let it have."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def add(self, *labels: str, amount: float = 1) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def collect(self) -> Iterable[Metric]:
        metric = Metric(self._name, self._text, "unknown")
        for labels, value in self._values.copy().items():
            metric.add_sample(self._name, dict(zip(self._labels, labels, strict=True)), value)
        yield metric


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        # It would add a second series to each histogram, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped in prometheus_client
        self._registry = registry = CollectorRegistry()
        serving = ":tensorflow:serving:"
        batching = f"{serving}batching_session:"
        self._requests = _Count(f"{serving}request_count", "Requests by outcome.", ("model_name", "status"), registry)
        self._request_latency = Histogram(
            f"{serving}request_latency",
            "Microseconds from the request's arrival to its answer.",
            ("model_name", "API", "entrypoint"),
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._runtime_latency = Histogram(
            f"{serving}runtime_latency",
            "Microseconds of one run of the model, whatever its rows.",
            ("model_name", "API", "runtime"),
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._queuing_latency = Histogram(
            f"{batching}queuing_latency",
            "Microseconds that a request waited for its run.",
            ("model_name",),
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._runs = _Count(f"{batching}wrapped_run_count", "Runs of the model.", ("model_name",), registry)
        self._batch_rows = Histogram(
            f"{batching}input_batch_size",
            "Rows asked for in one run.",
            ("model_name",),
            buckets=_ROWS,
            registry=registry,
        )
        self._padded_rows = Histogram(
            f"{batching}processed_batch_size",
            "Rows run, padding included.",
            ("model_name",),
            buckets=_ROWS,
            registry=registry,
        )
        self._padding = _Count(f"{batching}padding_size", "Rows of padding.", ("model_name",), registry)
        self._warmup_latency = Histogram(
            f"{serving}model_warmup_latency",
            "Microseconds of a version's warmup.",
            ("model_path", "status"),
            buckets=_MICROSECONDS,
            registry=registry,
        )
        self._loads = _Count(
            ":tensorflow:cc:saved_model:load_attempt_count", "Loads by outcome.", ("model_path", "status"), registry
        )
        self._waiting = Gauge(
            "whence_server_queue_rows", "Rows that wait for a run.", ("model_name",), registry=registry
        )
        self._rejected = _Count(
            "whence_server_queue_rejected", "Requests refused because the queue was full.", ("model_name",), registry
        )
        self._state = Gauge(
            "whence_server_version_state",
            "1 for the state that the version is in.",
            ("model_name", "version", "state"),
            registry=registry,
        )
        self._info = Gauge(
            "whence_server_info",
            "1, with what this server computes with.",
            ("engine", "precision", "threads"),
            registry=registry,
        )

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def started(self, engine: str, precision: str, threads: str) -> None:
        """What the server computes with; `threads` is `runners x threads inside one operation`."""
        self._info.labels(engine, precision, threads).set(1)

    def requested(self, model: str, status: str, seconds: float) -> None:
        """A Predict was answered. Latency counts successes only, as in TensorFlow Serving."""
        self._requests.add(model, status)
        if status == "OK":
            self._request_latency.labels(model, "Predict", "GRPC").observe(seconds * 1e6)

    def waiting(self, model: str, rows: int) -> None:
        """Rows joined the line, or left it."""
        self._waiting.labels(model).inc(rows)

    def rejected(self, model: str) -> None:
        """A request found the line full."""
        self._rejected.add(model)

    def queued(self, model: str, seconds: float) -> None:
        """A request's waiting is over."""
        self._queuing_latency.labels(model).observe(seconds * 1e6)

    def ran(self, model: str, seconds: float, *, rows: int, padded: int) -> None:
        """The model ran."""
        self._runtime_latency.labels(model, "Predict", "TF1").observe(seconds * 1e6)
        self._runs.add(model)
        self._batch_rows.labels(model).observe(rows)
        self._padded_rows.labels(model).observe(padded)
        self._padding.add(model, amount=padded - rows)

    def loaded(self, path: str, status: str) -> None:
        """A load ended."""
        self._loads.add(path, status)

    def warmed_up(self, path: str, status: str, seconds: float) -> None:
        """A warmup ended."""
        self._warmup_latency.labels(path, status).observe(seconds * 1e6)

    def entered(self, model: str, version: int, state: str, previous: str | None) -> None:
        """A version changed its state."""
        self.forgotten(model, version, previous)
        self._state.labels(model, str(version), state).set(1)

    def forgotten(self, model: str, version: int, state: str | None) -> None:
        """A version is no longer in that state."""
        if state is not None:
            self._state.remove(model, str(version), state)
