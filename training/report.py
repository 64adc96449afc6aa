"""The numbers of an evaluation as Markdown, for people and for the model card."""

from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_report(report: dict[str, Any], labels: tuple[str, ...], path: Path) -> None:
    """report.md: parts, baselines, classes, leaks, and the plots beside it."""
    lines = [f"# Evaluation of {report['run']}", "", f"Answers: {report['answers']}.", "", *parts_table(report["model"])]
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
        low, high = row["accuracy_interval"]
        down, up = row["nll_interval"]
        lines.append(
            f"| {name} | {row['count']} | {row['accuracy']:.3f} ({low:.3f}-{high:.3f}) | {row['balanced_accuracy']:.3f} "
            f"| {row['macro_f1']:.3f} | {row['top2']:.3f} | {row['nll']:.3f} ({down:.3f}-{up:.3f}) | {row['brier']:.3f} "
            f"| {row['ece']:.3f} | {row['coverage']:.2f} |"
        )
    return lines


def classes_table(classes: dict[str, Row]) -> list[str]:
    """One line per label."""
    lines = ["| class | pictures | recall | precision |", "|---|---|---|---|"]
    for label, row in classes.items():
        low, high = row["recall_interval"]
        lines.append(f"| {label} | {row['count']} | {row['recall']:.2f} ({low:.2f}-{high:.2f}) | {row['precision']:.2f} |")
    return lines


def leaks_table(leaks: dict[str, Row]) -> list[str]:
    """What is guessed without looking at the picture."""
    lines = ["| part | pictures | majority class | file geometry alone | source alone |", "|---|---|---|---|---|"]
    for part, row in leaks.items():
        cells = " | ".join(f"{row[key]:.2f}" for key in ("majority", "geometry", "source"))
        lines.append(f"| {part} | {row['pictures']} | {cells} |")
    return lines
