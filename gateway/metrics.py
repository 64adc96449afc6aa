"""Every metric of the gateway, named once, and what `/metrics` answers.

Seconds and bytes, labels with few values. In several processes (gunicorn.conf.py sets PROMETHEUS_MULTIPROC_DIR) the
same names are summed over all workers.
"""

from flask import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from serving.reference import Reference

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
_SHORT_SECONDS = (0.001, 0.0025, *_SECONDS)
_BYTES = (10e3, 30e3, 100e3, 300e3, 1e6, 3e6, 10e6, 30e6)
_MEGAPIXELS = (0.05, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_DISTANCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2)
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)

MAX_CULTURES = 200  # a label for each; a model server that makes up more does not fill the memory of Prometheus


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        several = values.ValueClass is not values.MutexValue  # as prometheus_client chose when it was imported
        registry = self._registry = CollectorRegistry()
        if not several:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
            GCCollector(registry=registry)
        self._exposed = registry
        if several:
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed)  # type: ignore[no-untyped-call]

        self.requests = Counter(
            "whence_http_requests", "HTTP requests answered", ["route", "method", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "whence_http_request_duration_seconds",
            "From arrival to answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "whence_stage_duration_seconds",
            "Where the time of a request goes: wait, read, decode, rpc, explain, respond",
            ["stage"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "whence_inflight_requests",
            "Prediction requests worked on",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.rejected = Counter("whence_rejected", "Requests refused, by reason", ["reason"], registry=registry)
        self.rpcs = Counter("whence_rpc", "Calls of the model server, by gRPC status", ["grpc_code"], registry=registry)
        self.rpc_retries = Counter(
            "whence_rpc_retries",
            "Second attempts by outcome: success, failure, and those not made: no_budget, no_backend, no_time",
            ["outcome"],
            registry=registry,
        )
        self.retry_budget = Gauge(
            "whence_retry_budget_ratio",
            "How full the budget of second attempts is",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.breaker_transitions = Counter(
            "whence_breaker_transitions",
            "Circuit breakers of model servers opened and closed",
            ["to"],
            registry=registry,
        )
        self.backend_ready = Gauge(
            "whence_backend_ready", "Model servers that get requests", multiprocess_mode="livemax", registry=registry
        )
        self.image_bytes = Histogram("whence_image_bytes", "Size of uploads", buckets=_BYTES, registry=registry)
        self.image_megapixels = Histogram(
            "whence_image_megapixels", "Size of pictures", buckets=_MEGAPIXELS, registry=registry
        )
        self.predictions = Counter(
            "whence_predictions", "Pictures answered", ["culture", "decision"], registry=registry
        )
        self.confidence = Histogram(
            "whence_confidence", "Probability of the likeliest culture", buckets=_CONFIDENCE, registry=registry
        )
        self.model_info = Gauge(
            "whence_model_info",
            "1 for the version that answered last, 0 for those before",
            ["name", "version"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.embedding_distance = Histogram(
            "whence_embedding_distance",
            "Cosine distance of each picture to the centroid of the release's reference",
            buckets=_DISTANCE,
            registry=registry,
        )
        self.centroid_distance = Gauge(
            "whence_embedding_centroid_distance",
            "Distance of the running mean embedding to the reference's centroid; 0 until a window is full",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.reference = Gauge(
            "whence_reference",
            "What the release's reference says: kind culture or decision (a share), or confidence, embedding_distance, "
            "centroid_limit",
            ["kind", "value"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.feedback = Counter(
            "whence_feedback", "Judgements of people: kept, repeated", ["outcome"], registry=registry
        )
        self._version: tuple[str, int] | None = None
        self._cultures: set[str] = set()

    def saw_version(self, name: str, version: int) -> None:
        """Remember which version answered."""
        if self._version == (name, version):
            return
        if self._version:
            self.model_info.labels(*map(str, self._version)).set(0)
        self._version = (name, version)
        self.model_info.labels(name, str(version)).set(1)

    def saw_prediction(self, culture: str, decision: str, probability: float) -> None:
        """Count one answered picture."""
        if len(self._cultures) < MAX_CULTURES:
            self._cultures.add(culture)
        self.predictions.labels(culture if culture in self._cultures else "other", decision).inc()
        self.confidence.observe(probability)

    def saw_reference(self, reference: Reference) -> None:
        """Show the yardstick beside what is measured with it, so that alerts and reports need no other file."""
        for culture, share in reference.cultures.items():
            self.reference.labels("culture", culture).set(share)
        for decision, share in reference.decisions.items():
            self.reference.labels("decision", decision).set(share)
        self.reference.labels("confidence", "").set(reference.confidence)
        self.reference.labels("embedding_distance", "").set(reference.distance)
        self.reference.labels("centroid_limit", "").set(reference.centroid_limit)

    def response(self) -> Response:
        """All of them, for Prometheus."""
        return Response(generate_latest(self._exposed), content_type=CONTENT_TYPE_LATEST)


def markdown() -> str:
    """The table of all metrics, as it stands in the README."""
    rows = ["| metric | type | what it tells |", "|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            # The library has no public way to a metric's labels before it was used.
            labels = f"{{{','.join(metric._labelnames)}}}" if metric._labelnames else ""
            suffix = "_total" if metric._type == "counter" else ""
            rows.append(f"| `{metric._name}{suffix}{labels}` | {metric._type} | {metric._documentation} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
