"""From a folder of pictures to what training reads: pixels made as the gateway makes them, and a split written down.

PREPARED/records.csv    every usable picture, what is known of it, and its part
PREPARED/pixels.npy     uint8 [N, 224, 224, 3], in the order of records.csv
PREPARED/split.json     digest, counts, unreadable files, leak report, and of a collected folder the rules from culture
                        strings to labels, for the data card; the last to be written and the first to go
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving.contract import IMAGE_SIZE
from serving.images import ImageError, load
from training import durable
from training.config import TrainConfig
from training.records import RULES, Record, load_records, read_records, write_records
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
    durable.sweep(config.prepared)
    scratch = config.prepared / f".all_{PIXELS}{durable.PART}"
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
    parted = split(
        numbered, config.labels, seed=config.split_seed, shares=config.shares, never_shown=config.never_shown
    )
    report = {
        "digest": digest(parted),
        "parts": _counts(parted),
        "near_duplicate_clusters": len(records) - len(set(numbers)),
        "unreadable": unreadable,
        "leaks": leak_report(parted, config.labels),
    }
    if (config.data / RULES).exists():
        report["rules"] = (config.data / RULES).read_text(encoding="utf-8")
    durable.remove(config.prepared / SPLIT)  # rows of one run and labels of another are nothing prepared
    _keep(pixels, len(records), scratch, config.prepared / PIXELS)
    write_records(config.prepared / RECORDS, parted)
    durable.write(config.prepared / SPLIT, json.dumps(report, indent=1).encode() + b"\n")
    return report


def load_prepared(prepared: Path) -> tuple[list[Record], NDArray[np.uint8], dict[str, Any]]:
    """Records, pixels (mapped, not read) and split.json. Raises ValueError when `prepare` has not run to its end."""
    if not (prepared / SPLIT).exists():
        raise ValueError(f"{prepared} is not prepared: run `python -m training prepare` first")
    try:
        report: dict[str, Any] = json.loads((prepared / SPLIT).read_text())
        records = load_records(prepared / RECORDS)
        pixels: NDArray[np.uint8] = np.load(prepared / PIXELS, mmap_mode="r")
        whole = len(pixels) == len(records) and digest(records) == report["digest"]
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:  # a file that is missing, or was cut off
        raise ValueError(f"{prepared} is damaged ({error}): run `python -m training prepare` again") from error
    if not whole:
        raise ValueError(f"{prepared} holds files that do not belong together: run `python -m training prepare` again")
    return records, pixels, report


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


def _keep(pixels: "np.memmap[Any, Any]", count: int, scratch: Path, path: Path) -> None:
    """Bring the pixels to their name; written again without the empty rows that unreadable files left."""
    if count < len(pixels):
        with durable.writing(path) as file:
            np.save(file, pixels[:count])
        scratch.unlink()
    else:
        pixels.flush()
        scratch.replace(path)


def _counts(records: list[Record]) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = {}
    for record in records:
        of_part = parts.setdefault(record.part, {})
        of_part[record.culture] = of_part.get(record.culture, 0) + 1
    return parts
