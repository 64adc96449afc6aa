"""Writes prometheusrule.yaml from rules.yaml, and dashboard.json from the panels below.

    python k8s/monitoring/generate.py [--check]

Standard library only. `--check` writes nothing and exits 1 if a file is not what it would write.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent
GRID_WIDTH: Final = 24  # Grafana's
PANEL_HEIGHT: Final = 8
PREDICT: Final = 'route=~"/v1/predict|/predict/|/v2/.+/infer"'


@dataclass(frozen=True)
class Panel:
    """One graph. `queries` maps a legend (`{{label}}` is filled in) to its PromQL; `unit` is Grafana's name of it."""

    title: str
    text: str
    unit: str
    queries: dict[str, str]
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels side by side under one heading."""

    title: str
    panels: tuple[Panel, ...]


def rate(series: str, by: str = "") -> str:
    """The sum of a counter's rates, by some labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({series}[$__rate_interval]))"


def quantiles(metric: str, selector: str = "", *, scale: str = "") -> dict[str, str]:
    """Median and 99th percentile of a histogram."""
    buckets = rate(f"{metric}_bucket{{{selector}}}" if selector else f"{metric}_bucket", "le")
    return {f"p{q * 100:.0f}": f"histogram_quantile({q}, {buckets}){scale}" for q in (0.5, 0.99)}


ROWS: Final = (
    Row(
        "What clients see",
        (
            Panel(
                "Requests",
                "Answers a second, by status.",
                "reqps",
                {"{{code}}": rate(f"whence_http_requests_total{{{PREDICT}}}", "code")},
                stacked=True,
            ),
            Panel(
                "Time to answer",
                "From arrival to answer. Objective: 99 % within 2 s.",
                "s",
                quantiles("whence_http_request_duration_seconds", PREDICT),
            ),
            Panel(
                "Budget burn",
                "How many times faster than allowed the budget of errors and of slow answers is used.",
                "none",
                {
                    "errors": "whence:predict_errors:ratio_rate1h / 0.005",
                    "slow": "whence:predict_slow:ratio_rate1h / 0.01",
                },
            ),
        ),
    ),
    Row(
        "Gateways",
        (
            Panel(
                "Where the time goes",
                "Seconds spent in each stage, a second: read, decode, wait, rpc, respond.",
                "s",
                {"{{stage}}": rate("whence_stage_duration_seconds_sum", "stage")},
                stacked=True,
            ),
            Panel(
                "In flight",
                "Predictions worked on now, by gateway; each takes WHENCE_MAX_IN_FLIGHT.",
                "none",
                {"{{instance}}": "sum by (instance) (whence_inflight_requests)"},
                stacked=True,
            ),
            Panel(
                "Turned away",
                "Requests refused a second, by reason.",
                "reqps",
                {"{{reason}}": rate("whence_rejected_total", "reason")},
                stacked=True,
            ),
        ),
    ),
    Row(
        "Gateway and model server",
        (
            Panel(
                "Calls",
                "Calls of the model servers a second, by gRPC status.",
                "reqps",
                {"{{grpc_code}}": rate("whence_rpc_total", "grpc_code")},
                stacked=True,
            ),
            Panel(
                "Second attempts",
                "Calls tried again on another server, by outcome. At most a tenth of all calls.",
                "reqps",
                {"{{outcome}}": rate("whence_rpc_retries_total", "outcome")},
            ),
            Panel(
                "Model servers in use",
                "How many each gateway sends requests to.",
                "none",
                {"{{instance}}": "sum by (instance) (whence_backend_ready)"},
            ),
            Panel(
                "Version that answers",
                "Gateways whose last answer came from this version of the model.",
                "none",
                {"{{name}} {{version}}": "sum by (name, version) (whence_model_info)"},
                stacked=True,
            ),
        ),
    ),
    Row(
        "Model servers, by their own count",
        (
            Panel(
                "Requests",
                "Requests a second, by status.",
                "reqps",
                {"{{status}}": rate(":tensorflow:serving:request_count", "status")},
                stacked=True,
            ),
            Panel(
                "Time in the model",
                "Successful calls only, which is all that TensorFlow Serving times.",
                "s",
                quantiles(":tensorflow:serving:runtime_latency", scale=" / 1e6"),
            ),
            Panel(
                "Wait for a batch",
                "Time in the batching queue.",
                "s",
                quantiles(":tensorflow:serving:batching_session:queuing_latency", scale=" / 1e6"),
            ),
            Panel(
                "Pictures in a batch",
                "Mean size of the batches that were run.",
                "none",
                {
                    "mean": f"{rate(':tensorflow:serving:batching_session:processed_batch_size_sum')} / "
                    f"{rate(':tensorflow:serving:batching_session:processed_batch_size_count')}"
                },
            ),
        ),
    ),
    Row(
        "Pictures and answers",
        (
            Panel(
                "Cultures",
                "Answers a second, by likeliest culture.",
                "none",
                {"{{culture}}": rate("whence_predictions_total", "culture")},
                stacked=True,
            ),
            Panel(
                "Not accepted",
                "Share of pictures for which the model abstains or which look like nothing it has seen.",
                "percentunit",
                {
                    "{{decision}}": f"{rate('whence_predictions_total', 'decision')} / on () group_left "
                    f"{rate('whence_predictions_total')}"
                },
            ),
            Panel(
                "Confidence",
                "Probability of the likeliest culture.",
                "percentunit",
                quantiles("whence_confidence"),
            ),
            Panel(
                "Uploads",
                "Size of the files.",
                "bytes",
                quantiles("whence_image_bytes"),
            ),
            Panel(
                "Pixels",
                "Size of the pictures, in megapixels.",
                "none",
                quantiles("whence_image_megapixels"),
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "CPU",
                "Cores used by each gateway.",
                "none",
                {"{{instance}}": 'rate(process_cpu_seconds_total{job="whence-gateway"}[$__rate_interval])'},
            ),
            Panel(
                "Memory",
                "Resident memory of each gateway.",
                "bytes",
                {"{{instance}}": 'process_resident_memory_bytes{job="whence-gateway"}'},
            ),
            Panel(
                "Targets",
                "Gateways and model servers that answer Prometheus.",
                "none",
                {"{{job}}": 'sum by (job) (up{job=~"whence-.*"})'},
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in the form that Grafana imports. The data source is chosen there."""
    return {
        "title": "Whence",
        "uid": "whence",
        "description": "Written by k8s/monitoring/generate.py; changes made in Grafana are lost.",
        "schemaVersion": 39,
        "editable": False,
        "tags": ["whence"],
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": list(_placed()),
    }


def _placed() -> Iterator[dict[str, Any]]:
    top, number = 0, 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "collapsed": False, "panels": []}
        width = GRID_WIDTH // len(row.panels)
        for column, panel in enumerate(row.panels):
            number += 1
            place = {"x": column * width, "y": top + 1, "w": width, "h": PANEL_HEIGHT}
            yield {"id": number, "gridPos": place} | _graph(panel)
        top += 1 + PANEL_HEIGHT


def _graph(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    stacking = {"mode": "normal" if panel.stacked else "none"}
    targets = [
        {"refId": chr(ord("A") + index), "datasource": source, "expr": query, "legendFormat": legend}
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"stacking": stacking, "fillOpacity": 20 if panel.stacked else 0},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def prometheus_rule() -> str:
    """rules.yaml as the operator's resource: the same text, one level deeper."""
    rules = (FOLDER / "rules.yaml").read_text()
    body = "".join(f"  {line}" if line.strip() else line for line in rules[rules.index("groups:") :].splitlines(True))
    return (
        "# Written by generate.py from rules.yaml.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        "  name: whence\n"
        f"spec:\n{body}"
    )


def main(argv: list[str]) -> int:
    """Write both files, or compare them. Returns the exit status."""
    wanted = {
        FOLDER / "prometheusrule.yaml": prometheus_rule(),
        FOLDER / "dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
    }
    if argv == ["--check"]:
        stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        print(f"stale: {', '.join(stale)}; run {Path(__file__).name}" if stale else "up to date")
        return 1 if stale else 0
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
