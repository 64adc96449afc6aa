"""Weights as constants of the graph: the same answers, and what cannot have them is served as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.server import cpu
from serving.server.tensorflow_engine import TensorFlowEngine
from tests.serving import zoo

pytestmark = pytest.mark.training

X = np.ones((2, 2), np.float32)
NUMBERS = tf.TensorSpec([None], tf.float32, "x")
FEEDS = {
    "serving_default": {"x": X},
    "upper": {"text": np.array([b"a"], object)},
    "busy": {"seconds": np.array([0.01], np.float32)},
    "picky": {"x": X},
    "scalar": {"n": np.int64(3)},
    "fixed": {"m": np.arange(4, dtype=np.float32).reshape(2, 2)},
    "distinct": {"values": np.array([1, 2, 1], np.int32)},
    "pair": {"x": X, "z": X},
    "bytes": {"pixels": np.array([1], np.uint8)},
    "rows": {"x": X},
}


class Odd(tf.Module):
    """What constants cannot stand for; and an input that no output needs."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.weight = tf.Variable(0.0), tf.Variable(5.0)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [10, 20]), -1)

    @tf.function(input_signature=[NUMBERS])
    def counts(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Writes a variable."""
        return {"y": x + self.count.assign_add(1.0)}

    @tf.function(input_signature=[NUMBERS])
    def looks_up(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads a table."""
        return {"y": self.table.lookup(tf.cast(x, tf.int32))}

    @tf.function(input_signature=[NUMBERS, tf.TensorSpec([None], tf.float32, "idle")])
    def ignores(self, x: tf.Tensor, idle: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads a weight and one of its inputs."""
        return {"y": x * self.weight}


def load(path: Path, *, precision: str = "float32", constant: bool | None = None) -> Any:
    # The first session's threads are all that later ones of this process get: as many as a server has.
    return TensorFlowEngine(intra_op=2, inter_op=2, precision=precision, constant=constant).load(path)


def has_variables(servable: Any) -> bool:
    """Looks inside: from outside the two differ by their speed only."""
    return "VarHandleOp" in {node.type for node in servable._session.graph.get_operations()}


@pytest.mark.parametrize("signature", sorted(FEEDS))
def test_constants_answer_what_variables_do(base_path: Path, signature: str) -> None:
    as_variables, as_constants = (load(base_path / "1", constant=constant) for constant in (False, True))
    assert [has_variables(each) for each in (as_variables, as_constants)] == [True, False]
    wanted = as_variables.run(signature, FEEDS[signature])
    found = as_constants.run(signature, FEEDS[signature])
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    assert as_constants.signatures.keys() == as_variables.signatures.keys()
    assert as_constants.signature_def_map == as_variables.signature_def_map


def test_every_signature_of_the_zoo_but_the_one_that_fails_is_compared() -> None:
    assert {*FEEDS, "unpack"} == {"serving_default", *zoo.SIGNATURES}


@pytest.mark.parametrize(("signature", "answers"), [("counts", [2, 3, 4]), ("looks_up", [10, 10, 10])])
def test_what_writes_or_looks_up_is_served_as_it_is(tmp_path: Path, signature: str, answers: list[float]) -> None:
    odd = Odd()
    tf.saved_model.save(odd, str(tmp_path / "1"), signatures=getattr(odd, signature))
    servable = load(tmp_path / "1", constant=True)
    assert has_variables(servable)
    x = np.array([1], np.float32)
    assert [float(servable.run("serving_default", {"x": x})["y"][0]) for _ in answers] == answers


def test_an_input_that_no_output_needs_can_still_be_given(tmp_path: Path) -> None:
    odd = Odd()
    tf.saved_model.save(odd, str(tmp_path / "1"), signatures=odd.ignores)
    servable = load(tmp_path / "1", constant=True)
    assert not has_variables(servable)
    x = np.array([1], np.float32)
    assert servable.run("serving_default", {"x": x, "idle": x})["y"] == [5]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_by_itself_only_bfloat16_with_amx_makes_constants(base_path: Path, precision: str) -> None:
    servable = load(base_path / "1", precision=precision)
    assert has_variables(servable) is not (precision == "bfloat16" and cpu.multiplies_tiles())
