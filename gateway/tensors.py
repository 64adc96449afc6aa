"""numpy arrays to TensorProto and back. Pure functions; whatever is wrong with a tensor is a ValueError."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.wire import prediction_pb2 as pb

# dtype number -> (numpy's little-endian dtype, the repeated field a server may use instead of tensor_content)
_NUMERIC: Final[dict[int, tuple[str, str]]] = {
    pb.DT_FLOAT: ("<f4", "float_val"),
    pb.DT_DOUBLE: ("<f8", "double_val"),
    pb.DT_INT32: ("<i4", "int_val"),
    pb.DT_UINT8: ("<u1", "int_val"),
    pb.DT_INT64: ("<i8", "int64_val"),
    pb.DT_BOOL: ("?", "bool_val"),
    pb.DT_HALF: ("<f2", "half_val"),
}
# What a single value may stand for: as many as fit into the largest reply that is taken (client.CHANNEL_OPTIONS).
MAX_REPEATED: Final = 4 * 1024 * 1024


def to_proto(images: NDArray[np.uint8]) -> pb.TensorProto:
    """uint8 pixels of any shape, packed: 20 times cheaper than the repeated `int_val`."""
    shape = pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in images.shape])
    return pb.TensorProto(dtype=pb.DT_UINT8, tensor_shape=shape, tensor_content=images.tobytes())


def to_numpy(tensor: pb.TensorProto) -> NDArray[Any]:
    """The array of a numeric tensor (in its dtype) or of a string tensor (of Python `bytes`).

    Reads tensor_content and the repeated fields alike. Raises ValueError for an unknown dtype or a number of values
    that is not what the shape says.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"shape {shape} is not fully known")
    if tensor.dtype == pb.DT_STRING:
        return _shaped(np.array(list(tensor.string_val), dtype=object), shape)
    if tensor.dtype not in _NUMERIC:
        raise ValueError(f"dtype {tensor.dtype} is not understood")
    dtype, repeated = _NUMERIC[tensor.dtype]
    if tensor.tensor_content:
        return _shaped(np.frombuffer(tensor.tensor_content, dtype), shape)
    values = getattr(tensor, repeated)
    try:
        if tensor.dtype == pb.DT_HALF:  # the bits of a float16, each in an int32
            return _shaped(np.array(values, np.uint16).view(dtype), shape)
        return _shaped(np.array(values, dtype), shape)
    except OverflowError as error:
        raise ValueError(f"a value of {repeated} does not fit {dtype}") from error


def _shaped(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`values` in `shape`. A single value stands for all (tensor.proto: the last value repeats)."""
    count = math.prod(shape)
    if values.size == 1 and 1 < count <= MAX_REPEATED:
        return np.broadcast_to(values, count).reshape(shape)
    if values.size != count:
        raise ValueError(f"{values.size} values do not make shape {shape}")
    return values.reshape(shape)
