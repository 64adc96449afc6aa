"""Strangers: what is drawn, and how well a score tells them from known pictures."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from training.strangers import auroc, drawn


def test_a_score_that_is_the_same_for_all_tells_nobody() -> None:
    assert auroc(np.zeros(7), np.zeros(5)) == 0.5
    assert auroc(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.5


def test_auroc_is_how_often_the_stranger_is_higher() -> None:
    assert auroc(np.array([0.1, 0.2]), np.array([0.3, 0.4])) == 1
    assert auroc(np.array([0.3, 0.4]), np.array([0.1, 0.2])) == 0
    assert auroc(np.array([1.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_drawn_things_are_as_many_as_asked_for_and_no_photographs() -> None:
    assert drawn(7).shape == (7, 224, 224, 3)
    np.testing.assert_array_equal(drawn(7)[:5], drawn(5))
