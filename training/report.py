"""The numbers of an evaluation as Markdown, for people and for the model card."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from training.metrics import GROUPS, PICTURES

Row = dict[str, Any]

# What the 95 % intervals of a table mean, by what they take as independent (a row of an older release does not say).
KINDS: Final = {
    GROUPS: "Intervals are 95 %, of a bootstrap that draws whole groups: books where these were held out, else artists "
    "or, where none is named, objects or books; as many as the table says.",
    PICTURES: "Intervals are 95 % and take pictures as independent: where several are of one artist or book, they are "
    "too narrow.",
}


def write_report(report: dict[str, Any], labels: tuple[str, ...], path: Path) -> None:
    """report.md: parts, baselines, classes, leaks, and the plots beside it."""
    lines = [
        f"# Evaluation of {report['run']}",
        "",
        f"Answers: {report['answers']}.",
        intervals_text(report["model"].values()),
        "",
        *parts_table(report["model"]),
    ]
    for name, differences in report["comparisons"].items():
        lines += ["", f"## Against {name}", "", *differences_table(differences)]
    for name, parts in report["baselines"].items():
        lines += ["", f"## Baseline: {name}", "", *parts_table(parts)]
    lines += ["", "## Classes", "", *classes_table(report["per_class"])]
    lines += ["", "## Strangers", "", *strangers_table(report["strangers"])]
    lines += ["", "## What gives a class away", "", *leaks_table(report["leaks"])]
    for name in ("confusion", "reliability", "coverage", "mistakes"):
        lines += ["", f"![{name}]({name}.png)"]
    path.write_text("\n".join(lines) + "\n")


def intervals_text(rows: Iterable[Row]) -> str:
    """What the intervals of these rows of `training.metrics.summary` mean."""
    kinds = {row.get("intervals", PICTURES) for row in rows}
    if kinds == {GROUPS, PICTURES}:
        return f"{KINDS[GROUPS]} Where it says none, pictures are taken as independent, and intervals are too narrow."
    return KINDS[GROUPS if kinds == {GROUPS} else PICTURES]


def parts_table(parts: dict[str, Row]) -> list[str]:
    """One line per slice of the pictures, with 95 % intervals: see `intervals_text`."""
    lines = [
        "| pictures | n | groups | accuracy | balanced | macro-F1 | top 2 | NLL | Brier | ECE | answered at 90 % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in parts.items():
        accuracy = _with_interval(row["accuracy"], row["accuracy_interval"])
        loss = _with_interval(row["nll"], row["nll_interval"])
        others = " | ".join(f"{row[key]:.3f}" for key in ("balanced_accuracy", "macro_f1", "top2"))
        lines.append(
            f"| {name} | {row['count']} | {row.get('groups', '-')} | {accuracy} | {others} | {loss} "
            f"| {row['brier']:.3f} | {row['ece']:.3f} | {row['coverage']:.2f} |"
        )
    return lines


def differences_table(differences: dict[str, Row]) -> list[str]:
    """One line per slice: how this model differs from another one on the same pictures; intervals are 95 %."""
    lines = ["| pictures | n | groups | accuracy | NLL |", "|---|---|---|---|---|"]
    for name, row in differences.items():
        cells = [_signed(row[key], row[f"{key}_interval"]) for key in ("accuracy", "nll")]
        lines.append(f"| {name} | {row['count']} | {row['groups']} | {' | '.join(cells)} |")
    return lines


def folds_tables(report: dict[str, Any]) -> list[str]:
    """What `training.crossvalidate` found: a table of the parts, and one for each config beside it."""
    lines = [intervals_text(report["model"].values()), "", *parts_table(report["model"])]
    for name, differences in report["comparisons"].items():
        lines += ["", f"Against `{name}`:", "", *differences_table(differences)]
    return lines


def classes_table(classes: dict[str, Row]) -> list[str]:
    """One line per label, with 95 % intervals: see `intervals_text`."""
    lines = ["| class | pictures | groups | recall | precision |", "|---|---|---|---|---|"]
    for label, row in classes.items():
        low, high = row["recall_interval"]
        recall = f"{row['recall']:.2f} ({low:.2f}-{high:.2f})"
        lines.append(f"| {label} | {row['count']} | {row.get('groups', '-')} | {recall} | {row['precision']:.2f} |")
    return lines


def strangers_table(strangers: dict[str, Row]) -> list[str]:
    """One line per kind of stranger: area under the ROC curve against validation pictures, and how many are told."""
    lines = [
        "| strangers | pictures | AUROC of ood_score | beside pictures in colour | AUROC of energy (not served) "
        "| called out of distribution |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in strangers.items():
        scores = " | ".join(f"{row[score]:.2f}" for score in ("distance", "in colour", "energy"))
        lines.append(f"| {name} | {row['count']} | {scores} | {row['called out of distribution']:.0%} |")
    return lines


def leaks_table(leaks: dict[str, Row]) -> list[str]:
    """What is guessed without looking at the picture, and how many are of sources that training knows."""
    lines = [
        "| part | pictures | majority class | file geometry alone | source alone | of a known source |",
        "|---|---|---|---|---|---|",
    ]
    for part, row in leaks.items():
        cells = " | ".join(f"{row[key]:.2f}" for key in ("majority", "geometry", "source"))
        known = f"{row['known_source']:.0%}" if "known_source" in row else "-"  # an older release does not say
        lines.append(f"| {part} | {row['pictures']} | {cells} | {known} |")
    return lines


def _signed(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"
