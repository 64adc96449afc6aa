"""What the released model says about many pictures: the graph that is exported, asked in batches on this machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.checkpoint import WEIGHTS, build_release_model, digest, load_release
from training.config import from_values
from training.export import Servable
from training.prepare import load_prepared
from training.records import Record
from training.runs import RUN

BATCH: Final = 16  # pictures; larger ones gain nothing on a processor

Answers = dict[str, NDArray[Any]]  # output of serving.contract -> [N, ...]


class ReleasedModel:
    """A release, ready to be asked for some of the outputs of signature `explain`."""

    def __init__(self, release_dir: Path, outputs: Sequence[str]) -> None:
        """Build the network. Raises ValueError for a release whose files do not belong together."""
        self.release = load_release(release_dir)
        self.sha256 = digest(release_dir / WEIGHTS)
        servable = Servable(
            build_release_model(self.release), self.release.labels, self.release.calibration, release=self.sha256
        )

        def graph(images: tf.Tensor) -> dict[str, tf.Tensor]:
            every = servable.explain(images)
            return {name: every[name] for name in outputs}  # what none of them needs is not computed

        self._graph = tf.function(graph, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])

    def ask(self, images: NDArray[np.uint8]) -> Answers:
        """The outputs for uint8 [N, 224, 224, 3], N > 0."""
        parts = [self._graph(tf.constant(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def validation_of(run: Path) -> tuple[list[Record], NDArray[np.uint8]]:
    """Records and pixels of what a run was trained and measured on. Raises ValueError when they have changed since."""
    facts = json.loads((run / RUN).read_text())
    config = from_values(facts["config"])
    records, pixels, split = load_prepared(config.prepared)
    if split["digest"] != facts["split"]:
        raise ValueError(f"{run} was trained on another split than {config.prepared} holds")
    return records, pixels
