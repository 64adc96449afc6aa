"""What the frozen network says of every picture and of its augmented views, computed once and kept beside the pixels.

PREPARED/features/<key>/directions.npz    strongest directions of the blocks whose covariances are read
PREPARED/features/<key>/features_<v>.npy  float32 [L, F]: what the head reads; view 0 is the picture as it is
PREPARED/features/<key>/given_<v>.npy     float16 [L, h, w, K]: what the last block is given

L counts the labelled pictures, which come first among the records. <key> names the network, the augmentation and the
pictures: other ones get another folder. A view appears whole or not at all, so a killed run loses one view at most.
"""

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving.contract import IMAGE_SIZE
from serving.images import load
from training.augment import augment
from training.config import TrainConfig, to_values
from training.model import (
    MAP_SIZE,
    build_extractor,
    build_model,
    build_reader,
    last_convolution,
    load_weights,
    weights_of,
)
from training.records import OTHER, Record

CUT: Final = 5  # the first block that fine-tuning changes; below it, features are computed once
DIRECTION_PICTURES: Final = 1500  # looked at for the strongest directions
DIRECTION_POSITIONS: Final = 8  # per picture


@dataclass(frozen=True)
class Features:
    """Cached views; rows are the labelled pictures."""

    directions: dict[int, NDArray[np.float32]]  # block -> [K, rank]
    features: list[NDArray[np.float32]]  # per view [L, F]
    given: list[NDArray[np.float16]]  # per view [L, h, w, K]


def extract(config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8]) -> Features:
    """Compute what is not cached yet and open all of it."""
    folder = config.prepared / "features" / _key(config, records)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    directions = _directions(config, model, pixels, folder / "directions.npz")
    set_directions(model, directions)
    labelled = sum(record.part != OTHER for record in records)

    def plain(i: int) -> NDArray[np.uint8]:
        return np.asarray(pixels[i])

    for view in range(config.views):
        if not (folder / f"features_{view}.npy").exists():
            make = plain if view == 0 else _augmented(config, records, view)
            side = IMAGE_SIZE if view == 0 else config.augmentation.side
            extractor = build_extractor(model, config.shape, CUT, side=side)
            _write_view(extractor, make, labelled, folder, view, config.batch)
    return Features(
        directions,
        [np.load(folder / f"features_{view}.npy", mmap_mode="r") for view in range(config.views)],
        [np.load(folder / f"given_{view}.npy", mmap_mode="r") for view in range(config.views)],
    )


def set_directions(model: keras.Model, directions: dict[int, NDArray[np.float32]]) -> None:
    """Put the directions into the layers that read covariances."""
    weights = weights_of(model)
    weights.update({f"texture{block}/basis": basis for block, basis in directions.items()})
    load_weights(model, weights)


def retextured(config: TrainConfig, model: keras.Model, features: Features) -> list[NDArray[np.float32]]:
    """The views' features with what blocks from CUT on now say, after their weights were trained. In memory."""
    slices, views = config.shape.slices(), []
    first = min(slices[block].start for block in slices if block >= CUT)
    for cached, given in zip(features.features, features.given, strict=True):
        reader = build_reader(model, CUT, side=given.shape[1])
        changed = np.array(cached)
        for at in tqdm(range(0, len(changed), config.batch), "block 5", unit="batch", mininterval=5):
            part = slice(at, at + config.batch)
            changed[part, first:] = reader.predict_on_batch(given[part].astype(np.float32))
        views.append(changed)
    return views


def batches(make: Callable[[int], NDArray[np.uint8]], count: int, size: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(first position, pictures) of each batch, made in the background while the network works on the one before."""
    ready: queue.Queue[Any] = queue.Queue(4)

    def fill() -> None:
        try:
            with ThreadPoolExecutor(2) as pool:
                for first in range(0, count, size):
                    ready.put((first, np.stack(list(pool.map(make, range(first, min(first + size, count)))))))
            ready.put(None)
        except Exception as error:  # handed to whoever waits
            ready.put(error)

    threading.Thread(target=fill, daemon=True).start()
    while (batch := ready.get()) is not None:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def _write_view(
    extractor: keras.Model,
    make: Callable[[int], NDArray[np.uint8]],
    count: int,
    folder: Path,
    view: int,
    size: int,
) -> None:
    (_, width), given_shape = extractor.output_shape
    scratch = {name: folder / f".{name}_{view}.npy" for name in ("given", "features")}
    features = np.lib.format.open_memmap(scratch["features"], "w+", np.float32, (count, width))
    given = np.lib.format.open_memmap(scratch["given"], "w+", np.float16, (count, *given_shape[1:]))
    with tqdm(total=count, desc=f"view {view}", unit="picture", mininterval=5) as progress:
        for first, pictures in batches(make, count, size):
            last = first + len(pictures)
            features[first:last], maps = extractor.predict_on_batch(pictures.astype(np.float32))
            given[first:last] = np.asarray(maps, np.float16)
            progress.update(len(pictures))
    del features, given
    for name, path in scratch.items():  # features last: they say that the view is whole
        path.rename(folder / f"{name}_{view}.npy")


def _augmented(config: TrainConfig, records: Sequence[Record], view: int) -> Callable[[int], NDArray[np.uint8]]:
    def make(i: int) -> NDArray[np.uint8]:
        picture = load((config.data / records[i].file).read_bytes())
        size = (records[i].width, records[i].height)
        return augment(picture.upright(size), config.augmentation, np.random.default_rng([view, i]))

    return make


def _directions(
    config: TrainConfig, model: keras.Model, pixels: NDArray[np.uint8], path: Path
) -> dict[int, NDArray[np.float32]]:
    """Per block [K, rank]: principal directions of the pooled block over positions, scaled to unit variance."""
    blocks = [block for block in config.shape.blocks if config.shape.rank(block)]
    if blocks and not path.exists():
        taps, preprocessing = model.get_layer("backbone"), model.get_layer("preprocessing")
        inner = keras.Model(taps.input, [taps.get_layer(last_convolution(block)).output for block in blocks])
        rng = np.random.default_rng(0)
        seen: dict[int, list[NDArray[np.float32]]] = {block: [] for block in blocks}
        chosen = np.sort(rng.permutation(len(pixels))[:DIRECTION_PICTURES])
        for first, pictures in tqdm(batches(lambda i: pixels[chosen[i]], len(chosen), config.batch), "directions"):
            outputs = inner.predict_on_batch(preprocessing(pictures.astype(np.float32)))
            for block, output in zip(blocks, outputs if len(blocks) > 1 else [outputs], strict=True):
                maps = np.asarray(output, np.float32)
                if maps.shape[1] > MAP_SIZE:
                    n, h, w, k = maps.shape
                    maps = maps.reshape(n, h // 2, 2, w // 2, 2, k).max((2, 4))
                flat = maps.reshape(len(maps), -1, maps.shape[-1])
                seen[block].append(
                    flat[:, rng.integers(0, flat.shape[1], DIRECTION_POSITIONS)].reshape(-1, flat.shape[-1])
                )
            del first
        found = {block: _principal(np.concatenate(values), config.shape.rank(block)) for block, values in seen.items()}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{str(block): basis for block, basis in found.items()})
    return {block: np.load(path)[str(block)] for block in blocks}


def _principal(values: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    strengths, directions = np.linalg.eigh(np.cov(values, rowvar=False))
    scaled = directions[:, ::-1][:, :rank] / np.sqrt(strengths[::-1][:rank] + 1e-6)
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


def _key(config: TrainConfig, records: Sequence[Record]) -> str:
    values = to_values(config)
    parts = ("data", "base_weights", "blocks", "ranks", "augmentation", "precision")
    files = [(record.file, record.bytes) for record in records]
    return hashlib.sha256(json.dumps([[values[name] for name in parts], files]).encode()).hexdigest()[:12]
