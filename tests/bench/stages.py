"""Where the time goes, as the systems themselves say: means of the histograms on their Prometheus pages."""

import re
import urllib.request
from collections.abc import Iterable

# Histogram -> (name in the report, what makes milliseconds of it, or None for a plain mean).
HISTOGRAMS = {
    "whence_stage_duration_seconds": ("gateway", 1e3),
    "whence_http_request_duration_seconds": ("gateway whole", 1e3),
    ":tensorflow:serving:batching_session:queuing_latency": ("server queue", 1e-3),
    ":tensorflow:serving:runtime_latency": ("server run of a batch", 1e-3),
    ":tensorflow:serving:request_latency": ("server whole", 1e-3),
    ":tensorflow:serving:batching_session:input_batch_size": ("batch rows", 1.0),
}
_LINE = re.compile(r"^(?P<name>[\w:]+)_(?P<kind>sum|count)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$")

Sums = dict[str, tuple[float, float]]  # name in the report -> (sum, count)


def read(addresses: Iterable[str]) -> Sums:
    """Sums and counts of the histograms above, so far."""
    found: dict[str, dict[str, float]] = {}
    for address in addresses:
        with urllib.request.urlopen(address, timeout=10) as page:
            for line in page.read().decode().splitlines():
                match = _LINE.match(line)
                if not match or match["name"] not in HISTOGRAMS:
                    continue
                name, factor = HISTOGRAMS[match["name"]]
                stage = re.search(r'stage="(\w+)"', match["labels"] or "")
                kinds = found.setdefault(f"{name} {stage[1]}" if stage else name, {"sum": 0.0, "count": 0.0})
                kinds[match["kind"]] += float(match["value"]) * (factor if match["kind"] == "sum" else 1)
    return {name: (kinds["sum"], kinds["count"]) for name, kinds in found.items()}


def means(before: Sums, after: Sums) -> dict[str, float]:
    """Mean of what was observed in between."""
    result = {}
    for name, (total, count) in after.items():
        earlier_total, earlier_count = before.get(name, (0.0, 0.0))
        if count > earlier_count:
            result[name] = round((total - earlier_total) / (count - earlier_count), 2)
    return result
