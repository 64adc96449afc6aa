"""Parts of a network on inputs of their own, sharing its weights: what fine-tuning trains, and what it reads again."""

from typing import Any, Final

import keras
from keras import ops

from serving.contract import IMAGE_SIZE
from training.layers import HeadLogits
from training.model import FEATURES
from training.shape import CHANNELS, CONVOLUTIONS, ModelShape

GIVEN: Final = "given"  # what a block is given: the pooled output of the block before it


def build_extractor(model: keras.Model, cut: int | None, *, side: int = IMAGE_SIZE) -> keras.Model:
    """Images [N, side, side, 3] -> features [N, F] and, unless `cut` is None, `given`: what block `cut` is given.

    That is what fine-tuning from `cut` on needs. The layers are the model's own.
    """
    images = keras.Input((side, side, 3))
    x, read = model.get_layer("preprocessing")(images), []
    outputs = {}
    for block in CONVOLUTIONS:
        if block == cut:
            outputs[GIVEN] = x
        x, texture = _run_block(model, block, x)
        read += texture
    return keras.Model(images, {**outputs, FEATURES: _joined(read)})


def build_trainee(model: keras.Model, cut: int, *, side: int, dropout: float) -> keras.Model:
    """`model` for training from pixels: images [N, side, side, 3] -> logits. Blocks before `cut` stay as they are."""
    for block, count in CONVOLUTIONS.items():
        for number in range(1, count + 1):
            model.get_layer("backbone").get_layer(f"block{block}_conv{number}").trainable = block >= cut
    images = keras.Input((side, side, 3))
    read = _run_blocks(model, 1, model.get_layer("preprocessing")(images))
    return keras.Model(images, HeadLogits(model.get_layer("head"), dropout, name="logits")(_joined(read)))


def build_tail(model: keras.Model, shape: ModelShape, cut: int, *, side: int, dropout: float) -> keras.Model:
    """The part of `model` from block `cut` on, sharing its weights, for training on what `build_extractor` gave.

    Inputs: what block `cut` is given, [N, side, side, K], and the features of the blocks before it. Output: logits.
    """
    given = keras.Input((side, side, CHANNELS[cut - 1]), name=GIVEN)
    known = keras.Input((shape.features_below(cut),), name="lower_features")
    read = [known, *_run_blocks(model, cut, given)]
    logits = HeadLogits(model.get_layer("head"), dropout, name="logits")(_joined(read))
    return keras.Model([given, known], logits, name="tail")


def build_reader(model: keras.Model, cut: int, *, side: int) -> keras.Model:
    """What block `cut` is given, [N, side, side, K] -> what the head reads of that block and those after it."""
    given = keras.Input((side, side, CHANNELS[cut - 1]))
    return keras.Model(given, _joined(_run_blocks(model, cut, given)))


def _run_blocks(model: keras.Model, first: int, x: Any) -> list[Any]:
    """What the head reads of blocks `first` to 5 when `first` is given x."""
    read = []
    for block in range(first, len(CONVOLUTIONS) + 1):
        x, texture = _run_block(model, block, x)
        read += texture
    return read


def _run_block(model: keras.Model, block: int, x: Any) -> tuple[Any, list[Any]]:
    """A block of the model on another input: what the next block is given, and what the head reads of this one."""
    taps, read = model.get_layer("backbone"), []
    for number in range(1, CONVOLUTIONS[block] + 1):
        x = taps.get_layer(f"block{block}_conv{number}")(x)
    if any(layer.name == f"texture{block}" for layer in model.layers):
        read.append(model.get_layer(f"texture{block}")(x))
    return ops.max_pool(x, 2, 2), read  # as VGG16 does between blocks


def _joined(read: list[Any]) -> Any:
    return keras.layers.Concatenate(dtype="float32")(read) if len(read) > 1 else read[0]
