"""The numbers of an evaluation as Markdown, for people and for the model card."""

from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_report(report: dict[str, Any], labels: tuple[str, ...], path: Path) -> None:
    """report.md: parts, baselines, classes, leaks, and the plots beside it."""
    lines = [
        f"# Evaluation of {report['run']}",
        "",
        f"Answers: {report['answers']}.",
        "",
        *parts_table(report["model"]),
    ]
    for name, differences in report["comparisons"].items():
        lines += ["", f"## Against {name}", "", *differences_table(differences)]
    for name, parts in report["baselines"].items():
        lines += ["", f"## Baseline: {name}", "", *parts_table(parts)]
    lines += ["", "## Classes", "", *classes_table(report["per_class"])]
    lines += ["", "## What gives a class away", "", *leaks_table(report["leaks"])]
    for name in ("confusion", "reliability", "coverage", "mistakes"):
        lines += ["", f"![{name}]({name}.png)"]
    path.write_text("\n".join(lines) + "\n")


def parts_table(parts: dict[str, Row]) -> list[str]:
    """One line per slice of the pictures; intervals are 95 %."""
    lines = [
        "| pictures | n | accuracy | balanced | macro-F1 | top 2 | NLL | Brier | ECE | answered at 90 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in parts.items():
        accuracy = _with_interval(row["accuracy"], row["accuracy_interval"])
        loss = _with_interval(row["nll"], row["nll_interval"])
        others = " | ".join(f"{row[key]:.3f}" for key in ("balanced_accuracy", "macro_f1", "top2"))
        lines.append(
            f"| {name} | {row['count']} | {accuracy} | {others} | {loss} | {row['brier']:.3f} | {row['ece']:.3f} "
            f"| {row['coverage']:.2f} |"
        )
    return lines


def differences_table(differences: dict[str, Row]) -> list[str]:
    """One line per slice: how this model differs from another one on the same pictures; intervals are 95 %."""
    lines = ["| pictures | n | groups | accuracy | NLL |", "|---|---|---|---|---|"]
    for name, row in differences.items():
        cells = [_signed(row[key], row[f"{key}_interval"]) for key in ("accuracy", "nll")]
        lines.append(f"| {name} | {row['count']} | {row['groups']} | {' | '.join(cells)} |")
    return lines


def classes_table(classes: dict[str, Row]) -> list[str]:
    """One line per label."""
    lines = ["| class | pictures | recall | precision |", "|---|---|---|---|"]
    for label, row in classes.items():
        low, high = row["recall_interval"]
        recall = f"{row['recall']:.2f} ({low:.2f}-{high:.2f})"
        lines.append(f"| {label} | {row['count']} | {recall} | {row['precision']:.2f} |")
    return lines


def leaks_table(leaks: dict[str, Row]) -> list[str]:
    """What is guessed without looking at the picture."""
    lines = ["| part | pictures | majority class | file geometry alone | source alone |", "|---|---|---|---|---|"]
    for part, row in leaks.items():
        cells = " | ".join(f"{row[key]:.2f}" for key in ("majority", "geometry", "source"))
        lines.append(f"| {part} | {row['pictures']} | {cells} |")
    return lines


def _signed(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"
