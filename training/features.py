"""What the frozen network says of every picture and of its augmented views, computed once and kept beside the pixels.

PREPARED/features/<key>/directions.npz         strongest directions of the blocks whose covariances are read
PREPARED/features/<key>/features_<v>.npy       float32 [L, F]: what the head reads
PREPARED/features/<key>/given_<cut>_<v>.npy    float16 [L, h, w, K]: what block <cut> is given

View <v> is 0, the picture as it is, or the number of an augmented one and a digest of the augmentation. L counts the
labelled pictures, which come first among the records. <key> names the network, the pictures and those of them that the
directions are looked for in: other ones get another folder. A view appears whole or not at all, so a killed run loses
one view at most.
"""

import hashlib
import json
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving.contract import IMAGE_SIZE
from serving.images import load
from training import durable
from training.augment import augment
from training.config import TrainConfig, to_values
from training.model import build_model, last_convolution, load_weights, weights_of
from training.parts import build_extractor
from training.records import STRANGE, TRAIN, VALIDATION, Record
from training.texture import MAP_SIZE

DIRECTION_PICTURES: Final = 1500  # looked at for the strongest directions
DIRECTION_POSITIONS: Final = 8  # per picture

Made = TypeVar("Made")


@dataclass(frozen=True)
class Features:
    """Cached views; rows are the labelled pictures."""

    directions: dict[int, NDArray[np.float32]]  # block -> [K, rank]
    features: list[NDArray[np.float32]]  # per view [L, F]
    given: list[NDArray[np.float16]]  # per view [L, h, w, K]; none where fine-tuning starts from pixels


def extract(config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8]) -> Features:
    """Compute what is not cached yet and open all of it."""
    folder = config.prepared / "features" / _key(config, records)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    directions = _directions(config, model, pixels, trained_on(config, records), folder / "directions.npz")
    set_directions(model, directions)
    labelled = sum(record.part not in STRANGE for record in records)

    names = [_name(config, view) for view in range(config.views)]
    for view, name in enumerate(names):
        paths = {"features": folder / f"features_{name}.npy"}
        if not config.fresh:
            paths = {"given": folder / f"given_{config.cut}_{name}.npy", **paths}
        if not all(path.exists() for path in paths.values()):
            side = IMAGE_SIZE if view == 0 else config.augmentation.side
            extractor = build_extractor(model, None if config.fresh else config.cut, side=side)
            _write_view(
                extractor, view_maker(config, records, pixels, view), labelled, paths, f"view {view}", config.batch
            )

    def opened(kind: str) -> list[NDArray[Any]]:
        return [np.load(folder / f"{kind}_{name}.npy", mmap_mode="r") for name in names]

    return Features(directions, opened("features"), [] if config.fresh else opened(f"given_{config.cut}"))


def trained_on(config: TrainConfig, records: Sequence[Record]) -> NDArray[np.int64]:
    """Rows of the pictures that training may look at: its own part; all labelled ones, if another run is measured."""
    parts = (TRAIN, *VALIDATION) if config.measured_by else (TRAIN,)
    return np.flatnonzero([record.part in parts for record in records])


def view_maker(
    config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8], view: int
) -> Callable[[int], NDArray[np.uint8]]:
    """Record number -> that view of the picture: as it is, or augmented the same way every time."""

    def plain(i: int) -> NDArray[np.uint8]:
        return np.asarray(pixels[i])

    return (lambda i: augmented(config, records[i], [view, i])) if view else plain


def augmented(config: TrainConfig, record: Record, seed: Sequence[int]) -> NDArray[np.uint8]:
    """One random view of a picture, uint8 [side, side, 3]; the same for the same seed."""
    picture = load((config.data / record.file).read_bytes())
    return augment(picture.upright((record.width, record.height)), config.augmentation, np.random.default_rng(seed))


def set_directions(model: keras.Model, directions: dict[int, NDArray[np.float32]]) -> None:
    """Put the directions into the layers that read covariances."""
    weights = weights_of(model)
    weights.update({f"texture{block}/basis": basis for block, basis in directions.items()})
    load_weights(model, weights)


def batches(make: Callable[[int], NDArray[np.uint8]], count: int, size: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(first position, pictures) of each batch, made in the background while the network works on the one before."""
    with ThreadPoolExecutor(2) as pool:

        def batch(index: int) -> tuple[int, NDArray[np.uint8]]:
            first = index * size
            return first, np.stack(list(pool.map(make, range(first, min(first + size, count)))))

        yield from ahead(batch, math.ceil(count / size))


def ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """make(0) to make(count - 1), up to four of them made in the background before they are asked for."""
    ready: queue.Queue[Any] = queue.Queue(4)

    def fill() -> None:
        try:
            for index in range(count):
                ready.put((make(index), None))
        except Exception as error:  # handed to whoever waits
            ready.put((None, error))

    threading.Thread(target=fill, daemon=True).start()
    for _ in range(count):
        made, error = ready.get()
        if error:
            raise error
        yield made


def _write_view(
    extractor: keras.Model,
    make: Callable[[int], NDArray[np.uint8]],
    count: int,
    paths: dict[str, Path],
    title: str,
    size: int,
) -> None:
    """Fill and rename the files of `paths`, in this order: the extractor's outputs by name."""
    scratch = {name: path.with_name(f".{path.name}") for name, path in paths.items()}
    dtypes = {"features": np.float32, "given": np.float16}
    maps = {
        name: np.lib.format.open_memmap(path, "w+", dtypes[name], (count, *extractor.output[name].shape[1:]))
        for name, path in scratch.items()
    }
    with tqdm(total=count, desc=title, unit="picture", mininterval=5) as progress:
        for first, pictures in batches(make, count, size):
            for name, values in extractor.predict_on_batch(pictures.astype(np.float32)).items():
                maps[name][first : first + len(pictures)] = np.asarray(values, dtypes[name])
            progress.update(len(pictures))
    maps.clear()
    for name, path in scratch.items():
        path.rename(paths[name])


def _directions(
    config: TrainConfig, model: keras.Model, pixels: NDArray[np.uint8], train: NDArray[np.int64], path: Path
) -> dict[int, NDArray[np.float32]]:
    """Per block [K, rank]: principal directions of the pooled block over positions, scaled to unit variance.

    They are those of the pictures `train`: what is measured on validation pictures must not have seen them.
    """
    blocks = [block for block in config.shape.blocks if config.shape.rank(block)]
    if blocks and not path.exists():
        taps, preprocessing = model.get_layer("backbone"), model.get_layer("preprocessing")
        inner = keras.Model(taps.input, [taps.get_layer(last_convolution(block)).output for block in blocks])
        rng = np.random.default_rng(0)
        seen: dict[int, list[NDArray[np.float32]]] = {block: [] for block in blocks}
        chosen = np.sort(rng.permutation(train)[:DIRECTION_PICTURES])
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
        with durable.writing(path) as file:
            np.savez(file, allow_pickle=False, **{str(block): basis for block, basis in found.items()})
    return {block: np.load(path)[str(block)] for block in blocks}


def _principal(values: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    strengths, directions = np.linalg.eigh(np.cov(values, rowvar=False))
    scaled = directions[:, ::-1][:, :rank] / np.sqrt(strengths[::-1][:rank] + 1e-6)
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


def _key(config: TrainConfig, records: Sequence[Record]) -> str:
    values = to_values(config)
    parts = ("data", "base_weights", "blocks", "ranks", "precision")
    known = [records[i].file for i in trained_on(config, records)]
    return _digest([[values[name] for name in parts], [(record.file, record.bytes) for record in records], known])


def _name(config: TrainConfig, view: int) -> str:
    """What tells a view's files from another's: its number, and how it was augmented."""
    return f"{view}_{_digest(vars(config.augmentation))}" if view else "0"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
