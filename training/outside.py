"""What a head knows of strangers: where its training pictures lie, and what pictures of other cultures look like."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from training.config import TrainConfig
from training.data import Examples, FreshViews, Rows
from training.head import picture_weights, project, solve, standardise
from training.model import load_weights, weights_of
from training.records import SHOWN, Record

OUTSIDE, USUAL = "head/outside", "head/usual"  # weights that only a head with the setting `outside` has
UNITS: Final = 20  # of distance, between what half of the known pictures exceed and what one in a hundred does


def learn_strangers(
    config: TrainConfig, model: keras.Model, examples: Examples, records: Sequence[Record], pixels: NDArray[np.uint8]
) -> None:
    """Tell the head where training pictures lie, as the network sees them now, and what other cultures look like."""
    shape, head = config.shape, model.get_layer("head")
    standard = np.asarray(head.standardise(examples.views.reader(model)(examples.train)))
    axes = project(standard[:, shape.lowest()], shape.axes)
    load_weights(model, weights_of(model) | {"head/axes": axes})
    places = np.asarray(head.place(standard))
    found = KMeans(min(shape.centres, len(places)), n_init=1, random_state=0).fit(places).cluster_centers_
    centres = np.resize(found / np.linalg.norm(found, axis=1, keepdims=True), (shape.centres, shape.axes))
    load_weights(model, weights_of(model) | {"head/centres": centres})
    if not config.outside:
        return
    shown = np.flatnonzero([record.part == SHOWN for record in records])
    rows, own = np.concatenate([examples.train, shown]), shape.standardised()
    views = FreshViews(config, records, pixels)

    def seen(rows: Rows, *, grey: bool) -> NDArray[np.float32]:
        return np.asarray(head.standardise(views.reader(model, grey=grey)(rows)))[:, own]

    # Without their colours too: more of one side are plates.
    read = np.concatenate([standard[:, own], seen(shown, grey=False), seen(rows, grey=True)])
    classes = np.concatenate([examples.truth[examples.train], np.full(len(shown), examples.classes)])
    groups = [records[i].artist or records[i].work for i in rows]
    load_weights(model, weights_of(model) | {OUTSIDE: _outside(config, read, classes, groups)})


def _outside(
    config: TrainConfig, read: NDArray[np.float32], classes: NDArray[np.int64], groups: Sequence[str]
) -> NDArray[np.float32]:
    """The weights [F + 1] that tell strangers by what is read of pictures, [2 N, F]: of each twice, in the same order.

    `classes` [N] has one more class than the config, the strangers; `groups` are the artists or works. Both sides weigh
    the same, and so do the classes.
    """
    strange = classes == len(config.labels)
    weights = picture_weights(classes, groups, group_weight=config.group_weight)
    weights[strange] *= len(config.labels)
    shift, scale = standardise(read)  # once more: fine-tuning has moved them
    kernel, bias = solve(
        (read - shift) * scale,
        np.tile(strange.astype(np.int64), 2),
        np.tile(weights, 2),
        classes=2,
        weight_decay=config.weight_decay,
        smoothing=0.0,
    )
    outside = (kernel[:, 1] - kernel[:, 0]) * scale
    return np.append(outside, bias[1] - bias[0] - shift @ outside)


def usual_distance(model: keras.Model, asked: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """USUAL, by what the head reads of pictures [N, F] of its classes that it has not learnt from.

    The distance that one in a hundred exceeds, and a unit in which half of them are far below it.
    """
    head = model.get_layer("head")
    half, most = np.quantile(np.asarray(head.distance(head.standardise(asked))), [0.5, 0.99])
    return {USUAL: np.array([most, max((most - half) / UNITS, 1e-3)], np.float32)}


def keep_usual(model: keras.Model, weights: Mapping[str, NDArray[Any]]) -> None:
    """Take USUAL from `weights`, if the head has it."""
    own = weights_of(model)
    if USUAL in own:
        load_weights(model, own | {USUAL: weights[USUAL]})
