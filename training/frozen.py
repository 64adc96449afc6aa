"""The head on the frozen network: which pictures teach it how much, and its optimum on what is cached of them."""

from collections.abc import Sequence
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data import Examples, Rows, Views
from training.features import Features
from training.head import even_out, picture_weights, project, solve, standardise
from training.model import load_weights, weights_of
from training.records import Record, classes_of
from training.shape import CHANNELS

EMBEDDED_PICTURES: Final = 3000  # looked at for the embedding's directions


def examples_of(
    config: TrainConfig,
    records: Sequence[Record],
    views: Views,
    features: Features,
    train: Rows,
    validation: Rows,
) -> Examples:
    """The pictures `train`, weighed as `config` says, and those that judge."""
    truth = np.array(classes_of(records, config.labels))
    weights = picture_weights(truth[train], [records[i].group for i in train], group_weight=config.group_weight)
    return Examples(views, features.features, train, validation, truth, weights, len(config.labels))


def solve_head(
    config: TrainConfig, model: keras.Model, views: Sequence[NDArray[np.float32]], examples: Examples
) -> None:
    """The head's optimum on the training pictures, and the embedding's directions.

    With `config.consistency` views are what must not change the answer; without, they are examples like the pictures.
    """
    train, others = examples.train, views[1:]
    seen = views[:1] if config.consistency else views
    known = np.concatenate([view[train] for view in seen])
    own, slices = config.shape.standardised(), config.shape.slices()
    shift, scale = standardise(known[:, own])
    known[:, own] = (known[:, own] - shift) * scale
    pairs = [
        slice(slices[n].start + 2 * CHANNELS[n], slices[n].stop) for n in config.shape.blocks if config.shape.rank(n)
    ]
    factors = even_out(known, pairs)
    truth, weights = np.tile(examples.truth[train], len(seen)), np.tile(examples.weights, len(seen))
    penalties = []
    if config.consistency:
        units = np.ones(known.shape[1], np.float32)
        units[own] = scale
        for place, factor in zip(pairs, factors, strict=True):
            units[place] = factor
        shares = np.sqrt(weights / weights.sum()).astype(np.float32)[:, None]
        for view in others:
            penalties.append((config.consistency / len(others), (view[train] - views[0][train]) * units * shares))
    kernel, bias = solve(
        known,
        truth,
        weights,
        classes=examples.classes,
        weight_decay=config.weight_decay,
        smoothing=config.label_smoothing,
        penalties=penalties,
    )
    for place, factor in zip(pairs, factors, strict=True):
        kernel[place] *= factor  # the network reads covariances as they are
    embedded = known[: len(train) : max(1, len(train) // EMBEDDED_PICTURES), config.shape.embedded()]
    head = {"shift": shift, "scale": scale, "kernel": kernel, "bias": bias,
            "projection": project(embedded, config.embedding_size)}  # fmt: skip
    load_weights(model, weights_of(model) | {f"head/{name}": value for name, value in head.items()})
