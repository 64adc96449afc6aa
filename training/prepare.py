"""From a folder of pictures to what training reads: pixels made as the gateway makes them, and a split written down.

PREPARED/records.csv    every usable picture, what is known of it, and its part
PREPARED/pixels.npy     uint8 [N, 224, 224, 3], in the order of records.csv
PREPARED/split.json     digest, counts, unreadable files, leak report
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving.contract import IMAGE_SIZE
from serving.images import ImageError, load
from training.config import TrainConfig
from training.records import Record, load_records, read_records, write_records
from training.splits import clusters, digest, leak_report, near_duplicates, perceptual_hashes, split

RECORDS: Final = "records.csv"
PIXELS: Final = "pixels.npy"
SPLIT: Final = "split.json"
GREY_CHROMA: Final = 6.0  # mean difference between colour channels below which a picture has no colour to speak of


def prepare(config: TrainConfig) -> dict[str, Any]:
    """Write `config.prepared` and return what stands in split.json."""
    config.prepared.mkdir(parents=True, exist_ok=True)
    # Labelled pictures first: what is computed for them alone is then an unbroken run of rows.
    found = sorted(read_records(config.data), key=lambda record: record.culture not in config.labels)
    missing = set(config.labels) - {record.culture for record in found}
    if missing:
        raise ValueError(f"{config.data} has no pictures of {', '.join(sorted(missing))}")
    scratch = config.prepared / f".{PIXELS}"
    pixels = np.lib.format.open_memmap(scratch, "w+", np.uint8, (len(found), IMAGE_SIZE, IMAGE_SIZE, 3))
    records: list[Record] = []
    hashes: list[tuple[int, int]] = []
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        decoded = pool.map(lambda record: _decode(config.data, record), found)
        for record, made in zip(found, tqdm(decoded, "pixels", len(found), unit="picture"), strict=True):
            if isinstance(made, str):
                unreadable[record.file] = made
                continue
            full, values = made
            pixels[len(records)] = values
            records.append(full)
            hashes.append(perceptual_hashes(values))
    numbers = clusters(len(records), near_duplicates(hashes))
    numbered = [replace(record, cluster=number) for record, number in zip(records, numbers, strict=True)]
    parted = split(numbered, config.labels, seed=config.split_seed, shares=config.shares)
    _keep(pixels, len(records), scratch, config.prepared / PIXELS)
    write_records(config.prepared / RECORDS, parted)
    report = {
        "digest": digest(parted),
        "parts": _counts(parted),
        "near_duplicate_clusters": len(records) - len(set(numbers)),
        "unreadable": unreadable,
        "leaks": leak_report(parted, config.labels),
    }
    (config.prepared / SPLIT).write_text(json.dumps(report, indent=1) + "\n")
    return report


def load_prepared(prepared: Path) -> tuple[list[Record], NDArray[np.uint8], dict[str, Any]]:
    """Records, pixels (mapped, not read) and split.json. Raises ValueError when `prepare` has not run."""
    if not (prepared / SPLIT).exists():
        raise ValueError(f"{prepared} is not prepared: run `python -m training prepare` first")
    pixels: NDArray[np.uint8] = np.load(prepared / PIXELS, mmap_mode="r")
    return load_records(prepared / RECORDS), pixels, json.loads((prepared / SPLIT).read_text())


def _decode(data: Path, record: Record) -> tuple[Record, NDArray[np.uint8]] | str:
    """The record with its file's geometry, and its pixels; or why there are none."""
    try:
        content = (data / record.file).read_bytes()
        picture = load(content)
        pixels = picture.pixels()
    except (ImageError, OSError) as error:
        return str(error)
    values = pixels.astype(np.int16)
    chroma = np.abs(values[..., 0] - values[..., 1]).mean() + np.abs(values[..., 1] - values[..., 2]).mean()
    grey = bool(chroma < GREY_CHROMA)
    return replace(record, grey=grey, width=picture.width, height=picture.height, bytes=len(content)), pixels


def _keep(pixels: NDArray[np.uint8], count: int, scratch: Path, path: Path) -> None:
    """Bring the pixels to their name; written again without the empty rows that unreadable files left."""
    if count < len(pixels):
        np.save(scratch.with_suffix(".whole.npy"), pixels[:count])
        scratch.unlink()
        scratch = scratch.with_suffix(".whole.npy")
    os.replace(scratch, path)


def _counts(records: list[Record]) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = {}
    for record in records:
        of_part = parts.setdefault(record.part, {})
        of_part[record.culture] = of_part.get(record.culture, 0) + 1
    return parts
