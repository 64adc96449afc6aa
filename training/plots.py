"""Pictures of the numbers, as PNG files. matplotlib without a screen."""

from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, Ints, confusion, reliability, risk_coverage

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOWN: Final = 24  # mistakes
DPI: Final = 90


def confusion_matrix(probabilities: Floats, truth: Ints, labels: tuple[str, ...], path: Path) -> None:
    """Rows are the truth and sum to 100 %; counts stand in the cells."""
    counts = confusion(probabilities, truth)
    figure, axes = plt.subplots(figsize=(6.5, 6))
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > 0.5 * counts[row].sum()
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", color="white" if dark else "black", size=8
        )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answer", ylabel="truth")
    _save(figure, path)


def reliability_diagram(probabilities: Floats, truth: Ints, path: Path) -> None:
    """How often answers of a given confidence are right; on the diagonal they are as sure as they should be."""
    rows = reliability(probabilities, truth)
    figure, axes = plt.subplots(figsize=(5, 4.5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    sizes = [10 + 200 * row["count"] / len(truth) for row in rows]
    axes.scatter([row["confidence"] for row in rows], [row["accuracy"] for row in rows], sizes)
    axes.set(xlabel="top probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    _save(figure, path)


def risk_coverage_curves(parts: dict[str, tuple[Floats, Ints]], path: Path) -> None:
    """Accuracy of the most confident share of answers, per part."""
    figure, axes = plt.subplots(figsize=(5.5, 4.5))
    for name, (probabilities, truth) in parts.items():
        if len(truth):
            coverage, accuracy = risk_coverage(probabilities, truth)
            first = min(len(truth) - 1, 9)  # a share of fewer than ten answers says nothing
            axes.plot(coverage[first:], accuracy[first:], label=f"{name} ({len(truth)})")
    axes.axhline(0.9, color="grey", linewidth=1, linestyle=":")
    axes.set(xlabel="share of pictures answered", ylabel="accuracy of these answers", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    _save(figure, path)


def mistakes(
    probabilities: Floats, truth: Ints, pixels: list[NDArray[np.uint8]], labels: tuple[str, ...], path: Path
) -> None:
    """The most confident wrong answers, with their pictures: what to look at, and not to publish."""
    wrong = np.flatnonzero(probabilities.argmax(1) != truth)
    worst = wrong[np.argsort(-probabilities[wrong].max(1))][:SHOWN]
    figure, grid = plt.subplots(4, 6, figsize=(12, 9))
    for axes, i in zip(grid.flat, worst, strict=False):
        axes.imshow(pixels[i])
        top = probabilities[i].argmax()
        axes.set_title(f"{labels[truth[i]]}, not {labels[top]} ({probabilities[i, top]:.0%})", size=8)
    for axes in grid.flat:
        axes.axis("off")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
