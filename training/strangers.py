"""Pictures that the model must not claim to know: other cultures, drawn things that are no artworks, and photographs.

Things are drawn here, so that anyone can draw them again: noise, gradients, pages of text, checks, charts. Photographs
are those that scikit-image and scikit-learn ship, where they are installed; a folder can hold more. The two are never
one kind: drawn things are easily told from artworks, and photographs are not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.stats import rankdata

from serving.contract import IMAGE_SIZE
from serving.images import ImageError, decode
from training.records import PICTURE_SUFFIXES

WORDS: Final = [
    "invoice",
    "total",
    "amount",
    "date",
    "number",
    "account",
    "balance",
    "statement",
    "payment",
    "due",
    "reference",
    "customer",
    "order",
    "item",
    "price",
    "tax",
    "meeting",
    "minutes",
    "agenda",
    "notes",
    "summary",
    "report",
    "section",
    "figure",
    "table",
    "appendix",
    "index",
    "chapter",
    "contents",
    "page",
]


def drawn(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """`count` drawn pictures that are no artworks, every kind in turn: uint8 [count, 224, 224, 3]."""
    rng = np.random.default_rng(seed)
    kinds: tuple[Callable[[np.random.Generator], NDArray[np.uint8]], ...] = (_noise, _gradient, _text, _checks, _chart)
    return np.stack([kinds[i % len(kinds)](rng) for i in range(count)])


def photographs() -> list[NDArray[np.uint8]]:
    """What installed packages ship: a rocket, a cup of coffee, a cat, a flower."""
    found = []
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina"):
        try:
            from skimage import data

            found.append(_squash(Image.fromarray(getattr(data, name)()).convert("RGB")))
        except (ImportError, AttributeError, OSError):  # not installed, or not among the files it ships
            continue
    try:
        from sklearn.datasets import load_sample_images

        found += [_squash(Image.fromarray(image)) for image in load_sample_images().images]
    except (ImportError, OSError):
        pass
    return found


def photographs_in(folder: Path) -> list[NDArray[np.uint8]]:
    """Every picture under `folder`, made as the gateway makes it. Raises ValueError for none, and for a broken one."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICTURE_SUFFIXES:
            try:
                found.append(decode(file.read_bytes()))
            except ImageError as error:
                raise ValueError(f"{file}: {error}") from error
    if not found:
        raise ValueError(f"{folder}: no picture ({', '.join(PICTURE_SUFFIXES)}) in it")
    return found


def auroc(known: NDArray[np.floating[Any]], strange: NDArray[np.floating[Any]]) -> float:
    """How often a stranger's score is higher than a known picture's, ties half: 0.5 is chance, 1 perfect."""
    ranks = rankdata(np.concatenate([known, strange]))
    above = ranks[len(known) :].sum() - len(strange) * (len(strange) + 1) / 2
    return float(above / (len(known) * len(strange)))


def _squash(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


def _noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    size = int(rng.choice([14, 56, 224]))
    values = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return values.repeat(IMAGE_SIZE // size, 0).repeat(IMAGE_SIZE // size, 1)


def _gradient(rng: np.random.Generator) -> NDArray[np.uint8]:
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    return np.asarray(corners.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def _text(rng: np.random.Generator) -> NDArray[np.uint8]:
    page = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    draw = ImageDraw.Draw(page)
    for line in range(8, IMAGE_SIZE - 12, int(rng.integers(11, 16))):
        draw.text((8, line), " ".join(rng.choice(WORDS, 7)), fill=(20, 20, 20))
    return np.asarray(page)


def _checks(rng: np.random.Generator) -> NDArray[np.uint8]:
    size = int(rng.choice([4, 8, 16, 28]))
    board = np.indices((IMAGE_SIZE, IMAGE_SIZE)).sum(0) // size % 2
    colours = rng.integers(0, 256, (2, 3), dtype=np.uint8)
    result: NDArray[np.uint8] = colours[board]
    return result


def _chart(rng: np.random.Generator) -> NDArray[np.uint8]:
    page = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    draw = ImageDraw.Draw(page)
    draw.line([(20, 10), (20, 204), (214, 204)], fill="black", width=2)
    for left in range(30, 200, 24):
        top = int(rng.integers(30, 190))
        draw.rectangle([left, top, left + 16, 204], fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return np.asarray(page)
