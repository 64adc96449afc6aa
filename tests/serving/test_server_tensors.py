"""TensorProto to numpy and back, for every type that a model may have."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.server import tensors
from serving.server.engine import Spec
from serving.server.errors import InvalidArgument

pytestmark = pytest.mark.training

NUMBERS = [
    tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.bool,
    tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("form", ["content", "values"])
def test_every_numeric_type_is_read_in_both_forms(dtype: tf.DType, form: str) -> None:
    array = np.ones((1, 1), dtype.as_numpy_dtype)
    tensor = tf.make_tensor_proto(array)  # one value goes into its `*_val` field, several go into tensor_content
    if form == "content":
        tensor = tensor_pb2.TensorProto(
            dtype=dtype.as_datatype_enum, tensor_shape=tensor.tensor_shape, tensor_content=array.tobytes()
        )
    assert bool(tensor.tensor_content) == (form == "content")
    assert tensors.check("x", tensor, Spec(dtype.as_datatype_enum, (None, 1))) == (1, 1)
    found = tensors.to_numpy("x", tensor)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_what_is_written_is_what_tensorflow_reads(dtype: tf.DType) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype.as_numpy_dtype)
    np.testing.assert_array_equal(tf.make_ndarray(tensors.to_proto(array)), array)


def test_complex_numbers_are_read_from_content_only() -> None:
    array = np.array([1 + 2j], np.complex64)
    tensor = tensor_pb2.TensorProto(dtype=tf.complex64.as_datatype_enum, scomplex_val=[1, 2])
    tensor.tensor_shape.CopyFrom(tf.TensorShape([1]).as_proto())
    with pytest.raises(InvalidArgument, match="complex64, which is read from tensor_content only"):
        tensors.to_numpy("x", tensor)
    tensor.tensor_content = array.tobytes()
    np.testing.assert_array_equal(tensors.to_numpy("x", tensor), array)


@pytest.mark.parametrize("fields", [{"float_val": [1]}, {"tensor_content": bytes(4)}])
def test_more_dimensions_than_numpy_has_are_refused(fields: dict[str, Any]) -> None:
    tensor = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum, **fields)
    tensor.tensor_shape.CopyFrom(tf.TensorShape([1] * 65).as_proto())
    assert tensors.check("x", tensor, Spec(1, None)) == (1,) * 65
    with pytest.raises(InvalidArgument, match="input 'x' has an impossible shape"):
        tensors.to_numpy("x", tensor)


def test_strings_keep_their_bytes() -> None:
    array = np.array([[b"\xff\x00", b""]], object)
    assert tensors.to_numpy("x", tensors.to_proto(array)).tolist() == array.tolist()


def test_reading_content_copies_nothing() -> None:
    tensor = tf.make_tensor_proto(np.zeros((2, 2), np.float32))
    assert not tensors.to_numpy("x", tensor).flags.owndata


@pytest.mark.parametrize(("shape", "text"), [(None, "[...]"), ((), "[]"), ((None, 224, 3), "[-1,224,3]")])
def test_shapes_are_written_as_people_know_them(shape: tuple[int | None, ...] | None, text: str) -> None:
    assert tensors.shape_text(shape) == text


def test_any_shape_fits_an_input_of_unknown_rank() -> None:
    tensor = tf.make_tensor_proto(np.zeros((1, 2, 3), np.float32))
    assert tensors.check("x", tensor, Spec(1, None)) == (1, 2, 3)
