"""TensorProto <-> numpy, with the checks that TensorFlow leaves to a crash or to gigabytes of memory."""

import math
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

from serving.server.engine import Spec
from serving.server.errors import InvalidArgument

# A TensorProto may hold one value and a shape, meaning "all are that"; this bounds what a few bytes can ask for.
MAX_FILLED_BYTES: Final = 64 << 20
_STRING_BYTES: Final = 24  # of each string in TensorFlow's memory, beside its text (tstring, ctstring_internal.h)

_FIELDS: Final = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
}


def dtype_name(dtype: int) -> str:
    """`float` for 1: the word that people know from `saved_model_cli`."""
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """`[-1,224,224,3]`; `[...]` for any rank."""
    return "[...]" if shape is None else "[" + ",".join("-1" if n is None else str(n) for n in shape) + "]"


def check(name: str, tensor: tensor_pb2.TensorProto, spec: Spec) -> tuple[int, ...]:
    """The tensor's shape, once dtype and shape fit the signature; nothing is copied for that.

    Raises:
        InvalidArgument: They do not; says what was sent and what was expected.
    """
    if tensor.dtype != spec.dtype:
        sent = dtype_name(tensor.dtype) if tensor.dtype in types_pb2.DataType.values() else str(tensor.dtype)
        raise InvalidArgument(f"input {name!r} has dtype {sent}, expected {dtype_name(spec.dtype)}")
    shape = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InvalidArgument(f"input {name!r} has no definite shape, expected {shape_text(spec.shape)}")
    check_shape(name, shape, spec)
    return shape


def check_shape(name: str, shape: tuple[int, ...], spec: Spec) -> None:
    """Nothing, where the shape fits the signature.

    Raises:
        InvalidArgument: It does not; says what was sent and what was expected.
    """
    if spec.shape is not None and (
        len(shape) != len(spec.shape)
        or any(want not in (None, size) for size, want in zip(shape, spec.shape, strict=True))
    ):
        raise InvalidArgument(f"input {name!r} has shape {shape_text(shape)}, expected {shape_text(spec.shape)}")


def to_numpy(name: str, tensor: tensor_pb2.TensorProto) -> NDArray[Any]:
    """The values of a checked tensor, from `tensor_content` or from its `*_val` field.

    Raises:
        InvalidArgument: There are more or fewer values than the shape has room for.
    """
    shape = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    if tensor.dtype == types_pb2.DT_STRING:
        return _fill(name, np.array(tensor.string_val, dtype=object), shape)
    dtype = np.dtype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype)
    content = tensor.tensor_content  # once: each look at it is a copy
    if not content:
        return _fill(name, _values(name, tensor, dtype), shape)
    size = math.prod(shape) * dtype.itemsize
    if len(content) != size:
        raise InvalidArgument(
            f"input {name!r} has {len(content)} bytes of tensor_content, expected {size} for {shape_text(shape)}"
        )
    return _shaped(name, np.frombuffer(content, dtype), shape)


def to_proto(array: NDArray[Any]) -> tensor_pb2.TensorProto:
    """An array as TensorFlow reads it: `tensor_content` for numbers, `string_val` for texts.

    Not by TensorFlow's own `make_tensor_proto`, which takes five times as long.
    """
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    )
    if array.dtype.kind in "OSU":
        texts = [text if isinstance(text, bytes) else text.encode() for text in array.ravel().tolist()]
        return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=texts)
    dtype = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=array.tobytes())


def _values(name: str, tensor: tensor_pb2.TensorProto, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The flat values of the `*_val` field that belongs to the dtype; tensor.proto says which."""
    if tensor.dtype not in _FIELDS:
        raise InvalidArgument(f"input {name!r} is {dtype_name(tensor.dtype)}, which is read from tensor_content only")
    sent = np.array(getattr(tensor, _FIELDS[tensor.dtype]))
    if tensor.dtype in (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16):  # their 16 bits travel as integers
        return sent.astype(np.uint16).view(dtype)
    values = sent.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(values, sent):
        raise InvalidArgument(f"input {name!r} has a value out of the range of {dtype_name(tensor.dtype)}")
    return values


def _fill(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Gives flat values their shape. As in TensorFlow, the last value stands for all that are left out."""
    elements = math.prod(shape)
    if 0 < values.size < elements and elements * _bytes(values[-1:]) <= MAX_FILLED_BYTES:
        values = np.concatenate([values, np.repeat(values[-1:], elements - values.size)])
    if values.size != elements:
        raise InvalidArgument(f"input {name!r} has {values.size} values, expected {elements} for {shape_text(shape)}")
    return _shaped(name, values, shape)


def _bytes(one: NDArray[Any]) -> int:
    """What each copy of a value costs; [1]. TensorFlow copies the text of a string too."""
    return _STRING_BYTES + len(one[0]) if one.dtype == object else one.itemsize


def _shaped(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return values.reshape(shape)
    except ValueError as error:  # more dimensions, or, where one of them is 0, more bytes than numpy can address
        raise InvalidArgument(f"input {name!r} has an impossible shape: {error}") from None
