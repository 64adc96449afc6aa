"""Predict: the right answers, and the right status for every request that does not fit."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.serving.running import Client, failure, request

pytestmark = pytest.mark.training

X = np.array([[1, 2], [3, 4]], np.float32)


def test_predict_answers_the_default_signature_with_its_version(server: Client) -> None:
    reply = server.prediction.Predict(request({"x": X}), timeout=10)
    spec = reply.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 1, "serving_default")
    np.testing.assert_array_equal(tf.make_ndarray(reply.outputs["y"]), 2 * X + 1)


def test_predict_answers_numbers_as_tensor_content(server: Client) -> None:
    output = server.prediction.Predict(request({"x": X}), timeout=10).outputs["y"]
    assert len(output.tensor_content) == 16
    assert not output.float_val


def test_predict_reads_values_from_the_typed_field(server: Client) -> None:
    tensor = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum, float_val=[1, 2, 3, 4])
    tensor.tensor_shape.CopyFrom(tf.TensorShape([2, 2]).as_proto())
    np.testing.assert_array_equal(server.predict({"x": tensor})["y"], 2 * X + 1)


def test_predict_fills_up_with_the_last_value_as_tensorflow_does(server: Client) -> None:
    tensor = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum, float_val=[5])
    tensor.tensor_shape.CopyFrom(tf.TensorShape([2, 2]).as_proto())
    np.testing.assert_array_equal(server.predict({"x": tensor})["y"], np.full((2, 2), 11))


def test_predict_returns_only_the_outputs_in_the_filter(server: Client) -> None:
    assert set(server.predict({"x": X}, output_filter=["sum"])) == {"sum"}


def test_predict_takes_and_returns_strings(server: Client) -> None:
    outputs = server.predict({"text": [b"dutch", "grüße".encode(), b""]}, "upper")
    assert outputs["upper"].tolist() == [b"DUTCH", "GRüßE".encode(), b""]
    assert outputs["length"].tolist() == [5, 7, 0]


def test_predict_runs_a_signature_without_batch_dimension(server: Client) -> None:
    assert server.predict({"n": np.int64(7)}, "scalar")["square"] == 49


def test_predict_runs_a_signature_of_fixed_shape(server: Client) -> None:
    np.testing.assert_array_equal(server.predict({"m": X}, "fixed")["transposed"], X.T)


def test_predict_answers_a_batch_of_none_with_none(server: Client) -> None:
    assert server.predict({"x": np.zeros((0, 2), np.float32)})["y"].shape == (0, 2)


@pytest.mark.parametrize("width", [0, 1, 5])
def test_predict_takes_any_size_in_a_free_dimension(server: Client, width: int) -> None:
    outputs = server.predict({"x": X, "z": np.ones((2, width), np.float32)}, "pair")
    assert outputs["sum"].tolist() == [3 + width, 7 + width]


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"name": ""}, "INVALID_ARGUMENT", "no name"),
        ({"name": "louvre"}, "NOT_FOUND", "no model 'louvre' here, only: zoo"),
        ({"version": 7}, "NOT_FOUND", "version 7 of model 'zoo' is not loaded; available versions: 1"),
        ({"label": "stable"}, "INVALID_ARGUMENT", "unrecognized version label 'stable'"),
        ({"signature": "classify"}, "FAILED_PRECONDITION", "signature 'classify' not found, expected one of: busy, "),
        ({"output_filter": ["z"]}, "INVALID_ARGUMENT", "output_filter names unknown outputs {z}, expected of {sum, y}"),
        ({"output_filter": ["y", "y"]}, "INVALID_ARGUMENT", "twice"),
    ],
)
def test_predict_refuses_a_wrong_address(server: Client, spec: dict[str, object], status: str, words: str) -> None:
    code, text = server.refused({"x": X}, **spec)
    assert (code, words in text) == (status, True), text


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "missing {x}, expected {x}"),
        ({"x": X, "w": X}, "unknown {w}"),
        ({"x": X.astype(np.float64)}, "input 'x' has dtype double, expected float"),
        ({"x": X[0]}, "input 'x' has shape [2], expected [-1,2]"),
        ({"x": np.zeros((1, 3), np.float32)}, "input 'x' has shape [1,3], expected [-1,2]"),
        ({"x": np.zeros((5, 2), np.float32)}, "the request has 5 rows, expected at most 4 (max_batch_size)"),
    ],
)
def test_predict_refuses_inputs_that_do_not_fit_the_signature(
    server: Client, inputs: dict[str, np.ndarray], words: str
) -> None:
    code, text = server.refused(inputs)
    assert (code, words in text) == ("INVALID_ARGUMENT", True), text


def test_predict_refuses_inputs_of_different_batch_sizes(server: Client) -> None:
    code, text = server.refused({"x": X, "z": np.ones((3, 1), np.float32)}, "pair")
    assert (code, "x [2,2], z [3,1]" in text) == ("INVALID_ARGUMENT", True), text


def raw(shape: list[int], dtype: int = 1, **fields: object) -> object:
    """A TensorProto as a careless or hostile client would write it."""
    tensor = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: raw([2, 2], tensor_content=b"\0" * 15), "15 bytes of tensor_content, expected 16 for [2,2]"),
        (lambda: raw([2, 2], float_val=[1, 2, 3, 4, 5]), "5 values, expected 4"),
        (lambda: raw([2, 2]), "0 values, expected 4"),
        (lambda: raw([-1, 2], float_val=[1]), "no definite shape"),
        (lambda: raw([2, 2], dtype=999), "dtype 999, expected float"),
    ],
)
def test_predict_refuses_a_tensor_whose_values_do_not_fill_its_shape(
    server: Client, tensor: object, words: str
) -> None:
    code, text = server.refused({"x": tensor()})  # type: ignore[operator]
    assert (code, words in text) == ("INVALID_ARGUMENT", True), text


def test_predict_refuses_to_fill_gigabytes_from_one_value(server: Client) -> None:
    code, text = server.refused({"x": raw([1, 2], float_val=[1]), "z": raw([1, 1 << 40], float_val=[1])}, "pair")
    assert (code, "1 values, expected" in text) == ("INVALID_ARGUMENT", True), text


def test_predict_refuses_to_fill_gigabytes_from_one_string(server: Client) -> None:
    code, text = server.refused({"text": raw([1_000_000], dtype=7, string_val=[b"a" * 1000])}, "upper")
    assert (code, "1 values, expected 1000000" in text) == ("INVALID_ARGUMENT", True), text
    filled = server.predict({"text": raw([3], dtype=7, string_val=[b"a" * 1000])}, "upper")
    assert filled["upper"].tolist() == [b"A" * 1000] * 3


def test_predict_refuses_a_shape_of_more_bytes_than_there_are_addresses(server: Client) -> None:
    code, text = server.refused({"x": raw([0, 2]), "z": raw([0, 1 << 62])}, "pair")
    assert (code, "input 'z' has an impossible shape" in text) == ("INVALID_ARGUMENT", True), text


def test_predict_quotes_no_more_than_a_client_of_grpc_can_read(server: Client) -> None:
    for word in ("a" * 1_000_000, "\U0001f3a8" * 100_000):
        code, text = server.refused({"x": X}, word)
        assert code == "FAILED_PRECONDITION"
        assert text.startswith("serving signature '" + word[:9])
        assert text.endswith(", upper")


def test_predict_refuses_an_integer_that_does_not_fit_its_type(server: Client) -> None:
    code, text = server.refused({"pixels": raw([1], dtype=4, int_val=[256])}, "bytes")
    assert (code, "out of the range of uint8" in text) == ("INVALID_ARGUMENT", True), text


def test_predict_tells_what_the_model_refuses_without_its_inner_names(server: Client) -> None:
    code, text = server.refused({"x": -X}, "picky")
    assert (code, "x must not be negative" in text) == ("INVALID_ARGUMENT", True), text
    assert "{{" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("method", "empty"),
    [
        ("Classify", classification_pb2.ClassificationRequest()),
        ("Regress", regression_pb2.RegressionRequest()),
        ("MultiInference", inference_pb2.MultiInferenceRequest()),
    ],
)
def test_other_methods_of_the_service_are_unimplemented(server: Client, method: str, empty: object) -> None:
    code, _ = failure(lambda: getattr(server.prediction, method)(empty, timeout=10))
    assert code == "UNIMPLEMENTED"
