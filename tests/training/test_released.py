"""The checkpoint in git: it is whole, it fits, and it still answers as it did on the day of its release."""

import numpy as np
import pytest

pytest.importorskip("keras")

from training.__main__ import RELEASE_DIR
from training.checkpoint import MAX_BYTES, WEIGHTS, load_release, probe_answers

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


def test_released_checkpoint_is_small_enough_for_git() -> None:
    assert (RELEASE_DIR / WEIGHTS).stat().st_size <= MAX_BYTES


def test_released_checkpoint_reproduces_its_recorded_answers() -> None:
    released = load_release(RELEASE_DIR)
    np.testing.assert_allclose(probe_answers(released), released.facts["answers"], atol=2e-3)
