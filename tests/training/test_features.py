"""What is cached of the frozen network, and what it was allowed to see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.config import TrainConfig
from training.features import extract
from training.prepare import load_prepared
from training.records import OTHER, SHOWN, TRAIN, VALIDATION

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.fixture(scope="module")
def directions(finished_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Block 5's directions of a few drawn pictures, and of the same with noise in the place of those of some parts."""
    records, pixels, _ = load_prepared(finished_run.prepared)
    rows: list[int] = []
    for parts in ((TRAIN,), VALIDATION, (SHOWN,), (OTHER,)):
        rows += [i for i, record in enumerate(records) if record.part in parts][:2]
    records, pixels = [records[i] for i in rows], pixels[rows]
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)

    def found(parts: tuple[str, ...], measured_by: Path | None = None) -> np.ndarray:
        config = replace(finished_run, prepared=tmp_path_factory.mktemp("features"), views=1, consistency=0.0,
                         fresh=True, measured_by=measured_by)  # fmt: skip
        strange = np.array([record.part in parts for record in records])
        return extract(config, records, np.where(strange[:, None, None, None], noise, pixels)).directions[5]

    return {
        "as they are": found(()),
        "validation strange": found((*VALIDATION, SHOWN, OTHER)),
        "training strange": found((TRAIN,)),
        "repeated": found((), finished_run.run),
        "repeated, validation strange": found(VALIDATION, finished_run.run),
        "repeated, others strange": found((SHOWN, OTHER), finished_run.run),
    }


def test_directions_have_not_seen_validation_pictures(directions: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(directions["as they are"], directions["validation strange"])
    assert not np.allclose(directions["as they are"], directions["training strange"])


def test_directions_of_a_repeated_run_are_of_all_labelled_pictures(directions: dict[str, np.ndarray]) -> None:
    assert not np.allclose(directions["repeated"], directions["repeated, validation strange"])
    np.testing.assert_array_equal(directions["repeated"], directions["repeated, others strange"])


def test_features_of_other_directions_are_kept_apart(finished_run: TrainConfig) -> None:
    found = [np.load(path)["5"] for path in (finished_run.prepared / "features").glob("*/directions.npz")]
    assert len(found) >= 2  # of the measured run, and of its repetition on everything
    assert not np.allclose(found[0], found[1])
