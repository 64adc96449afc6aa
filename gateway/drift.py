"""`whence drift`: have the pictures, or the answers, changed since the release was measured? From Prometheus' data.

Compares a window of time with the reference that every gateway publishes beside its own numbers. The population
stability index sums (now - then) * ln(now / then) over the shares; by convention below 0.1 is steady and from
0.25 on a change that calls for a look.
"""

import argparse
import http.client
import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

STEADY: Final = "steady"
MOVED: Final = "moved"
DRIFTED: Final = "drifted"

ENOUGH: Final = 300  # pictures; with fewer, chance alone moves shares this far
_FLOOR: Final = 1e-3  # of a share, so that one that was or is zero does not make the index infinite
TIMEOUT_S: Final = 30
_QUERIES: Final = {
    "cultures": "sum by (culture) (increase(whence_predictions_total[{window}]))",
    "decisions": "sum by (decision) (increase(whence_predictions_total[{window}]))",
    "confidence": ("sum(increase(whence_confidence_sum[{window}])) / sum(increase(whence_confidence_count[{window}]))"),
    "distance": (
        "sum(increase(whence_embedding_distance_sum[{window}]))"
        " / sum(increase(whence_embedding_distance_count[{window}]))"
    ),
    "centroid": "max(whence_embedding_centroid_distance)",
    "reference": "max by (kind, value) (whence_reference)",
}


class NoReport(RuntimeError):
    """There is nothing to compare; the message says why."""


@dataclass(frozen=True)
class Line:
    """One thing compared."""

    what: str
    then: str
    now: str
    change: str
    verdict: str


@dataclass(frozen=True)
class Seen:
    """What Prometheus knows of a window of time. NaN where it has no number."""

    cultures: Mapping[str, float]  # pictures answered, by culture
    decisions: Mapping[str, float]
    confidence: float  # mean
    distance: float  # mean
    centroid: float  # of the running mean, now; 0 until its window is full
    reference: Mapping[tuple[str, str], float]  # (kind, value) -> number

    @property
    def pictures(self) -> float:
        """How many were answered."""
        return sum(self.decisions.values())

    def then(self, kind: str) -> dict[str, float]:
        """The reference's shares of one kind."""
        return {value: number for (name, value), number in self.reference.items() if name == kind}


def look(prometheus: str, window: str) -> Seen:
    """Ask Prometheus at its base address. Raises NoReport when it does not answer, or knows no reference."""
    rows = {name: list(_query(prometheus, text.format(window=window))) for name, text in _QUERIES.items()}
    if not rows["reference"]:
        raise NoReport("Prometheus knows no whence_reference: start the gateways with WHENCE_REFERENCE")
    seen = Seen(
        cultures={labels.get("culture", ""): number for labels, number in rows["cultures"]},
        decisions={labels.get("decision", ""): number for labels, number in rows["decisions"]},
        reference={(labels.get("kind", ""), labels.get("value", "")): number for labels, number in rows["reference"]},
        **{name: rows[name][0][1] if rows[name] else math.nan for name in ("confidence", "distance", "centroid")},
    )
    if seen.pictures < 1:
        raise NoReport(f"no picture was answered in the last {window}")
    return seen


def compare(seen: Seen) -> Iterator[Line]:
    """Every comparison that there are numbers for."""
    for kind, counts in (("culture", seen.cultures), ("decision", seen.decisions)):
        yield from _mix(f"mix of {kind}s", seen.then(kind), counts)
    then = seen.reference.get(("confidence", ""), math.nan)
    yield _mean("mean confidence", then, seen.confidence, limits=(0.05, 0.1), relative=False)
    then = seen.reference.get(("embedding_distance", ""), math.nan)
    yield _mean("mean distance of a picture to the centroid", then, seen.distance, limits=(0.1, 0.25), relative=True)
    limit = seen.reference.get(("centroid_limit", ""), math.nan)
    if seen.centroid > 0 and limit > 0:
        verdict = DRIFTED if seen.centroid > limit else STEADY
        factor = f"{seen.centroid / limit:.2f} of the limit"
        yield Line("distance of the running mean", f"at most {limit:.3f}", f"{seen.centroid:.3f}", factor, verdict)


def stability_index(then: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The population stability index of two mixes; `now` may be counts."""
    total = sum(now.values()) or 1.0
    pairs = [(max(then.get(key, 0), _FLOOR), max(now.get(key, 0) / total, _FLOOR)) for key in then.keys() | now.keys()]
    return sum((new - old) * math.log(new / old) for old, new in pairs)


def _mix(what: str, then: Mapping[str, float], counts: Mapping[str, float]) -> Iterator[Line]:
    total = sum(counts.values())
    if not then or not total:
        return
    index = stability_index(then, counts)
    verdict = STEADY if index < 0.1 else MOVED if index < 0.25 else DRIFTED
    yield Line(what, "", f"{total:,.0f} pictures", f"index {index:.3f}", verdict)
    for key in sorted(then.keys() | counts.keys(), key=lambda key: -then.get(key, 0)):
        old, new = then.get(key, 0.0), counts.get(key, 0.0) / total
        yield Line(f"  {key}", f"{old:.1%}", f"{new:.1%}", f"{100 * (new - old):+.1f} points", "")


def _mean(what: str, then: float, now: float, *, limits: tuple[float, float], relative: bool) -> Line:
    change = (now - then) / then if relative and then else now - then
    verdict = next((name for limit, name in zip(limits, (STEADY, MOVED), strict=True) if abs(change) < limit), DRIFTED)
    if math.isnan(change):
        return Line(what, f"{then:.3f}", "unknown", "", "")
    return Line(what, f"{then:.3f}", f"{now:.3f}", f"{change:+.1%}" if relative else f"{change:+.3f}", verdict)


def report(lines: list[Line], seen: Seen, window: str) -> str:
    """The comparisons as a table, and what follows from them."""
    rows = [("", "reference", f"last {window}", "change", ""), *((*vars(line).values(),) for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    if seen.pictures < ENOUGH:
        return f"{table}\n\nToo few pictures to say: {seen.pictures:,.0f} of {ENOUGH}."
    found = [line.what for line in lines if line.verdict == DRIFTED]
    return f"{table}\n\n" + (f"Drifted: {', '.join(found)}." if found else "No drift.")


def _query(prometheus: str, promql: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and number of each row of an instant query. Raises NoReport."""
    address = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - `_address` checked the scheme
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return iter([(dict(row["metric"]), float(row["value"][1])) for row in found])
    except (http.client.HTTPException, OSError, ValueError, LookupError, TypeError) as error:
        raise NoReport(f"{prometheus} does not answer as Prometheus does: {error}") from error


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `drift`."""
    parser = commands.add_parser(
        "drift",
        help="have pictures or answers changed since the release?",
        description=__doc__,
        epilog="exit status: 0 no drift; 1 drift; 2 nothing to compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--prometheus", type=_address, default="http://127.0.0.1:9090", metavar="URL", help="(%(default)s)")
    add("--window", type=_window, default="7d", help="how far to look back, as Prometheus writes it (%(default)s)")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run)


def _address(text: str) -> str:
    if not re.match(r"https?://", text):
        raise argparse.ArgumentTypeError("expected http://... or https://...")
    return text


def _window(text: str) -> str:
    if not re.fullmatch(r"([0-9]+(s|m|h|d|w|y))+", text):
        raise argparse.ArgumentTypeError("expected a duration such as 7d or 12h")
    return text


def _run(options: argparse.Namespace) -> int:
    seen = look(options.prometheus, options.window)
    lines = list(compare(seen))
    if not any(line.verdict for line in lines):
        raise NoReport("the reference and Prometheus have no number in common")
    if options.json:
        print(json.dumps({"pictures": seen.pictures, "enough": seen.pictures >= ENOUGH, "lines": [*map(vars, lines)]}))
    else:
        print(report(lines, seen, options.window))
    drifted = any(line.verdict == DRIFTED for line in lines)
    return 1 if drifted and seen.pictures >= ENOUGH else 0
