"""A fast run of `python -m training collect`, and what it leaves."""

import csv
import json
from pathlib import Path
from typing import Any

from tests.training.fake_met import FakeMet


def command(met: FakeMet, out: Path, **options: Any) -> list[str]:
    """The arguments of a fast run: waits of hundredths of a second rather than seconds."""
    objects_csv = met.write_csv(out.parent / "MetObjects.csv")
    settings = {"objects_csv": objects_csv, "out": out, "api": met.api, "per_culture": 100,
                "contact": "tests@example.org", "rate": 2000, "backoff": 0.01, "timeout": 1} | options  # fmt: skip
    return ["collect", *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def saved(out: Path) -> set[int]:
    return {int(row["object_id"]) for row in rows(out)}


def reasons(out: Path, outcome: str) -> dict[str, int]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return dict(report["objects"][outcome])


def pictures(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in (out / "images").rglob("*") if path.is_file()}
