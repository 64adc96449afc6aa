"""SavedModels small enough to be made while the tests wait, each with a signature for every kind of request."""

import shutil
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

FLOATS = tf.TensorSpec([None, 2], tf.float32, "x")


class Zoo(tf.Module):
    """Signatures by what is odd about them. `bias` tells versions apart."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = tf.Variable(bias)

    @tf.function(input_signature=[FLOATS])
    def double(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Two outputs: 2 x + bias, and each row's sum."""
        return {"y": 2 * x + self.bias, "sum": tf.reduce_sum(x, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def upper(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Strings in, strings and integers out."""
        return {"upper": tf.strings.upper(text), "length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "seconds")])
    def busy(self, seconds: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes as long as the longest of its rows asks for."""
        end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
        turns = tf.while_loop(lambda _: tf.timestamp() < end, lambda turn: [turn + 1], [tf.constant(0)])
        return {"seconds": seconds + 0 * tf.cast(turns[0], tf.float32)}

    @tf.function(input_signature=[FLOATS])
    def picky(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Refuses negative values."""
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="x must not be negative")]):
            return {"y": tf.sqrt(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, "n")])
    def scalar(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
        """Has no batch dimension."""
        return {"square": n * n}

    @tf.function(input_signature=[tf.TensorSpec([2, 2], tf.float32, "m")])
    def fixed(self, m: tf.Tensor) -> dict[str, tf.Tensor]:
        """Has a fixed shape."""
        return {"transposed": tf.transpose(m)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "values")])
    def distinct(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Promises a batch and does not keep it: its output is as long as it likes."""
        return {"values": tf.unique(values).y}

    @tf.function(input_signature=[FLOATS, tf.TensorSpec([None, None], tf.float32, "z")])
    def pair(self, x: tf.Tensor, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """Two inputs, one of them of any width."""
        return {"sum": tf.reduce_sum(x, axis=1) + tf.reduce_sum(z, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.uint8, "pixels")])
    def bytes(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes small integers."""
        return {"pixels": pixels}

    @tf.function(input_signature=[FLOATS])
    def rows(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """How many rows the run had, padding included."""
        return {"rows": tf.fill(tf.shape(x)[:1], tf.shape(x)[0])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "packed")])
    def unpack(self, packed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fails at what is not gzip, and not with an error that is the caller's by its name."""
        return {"text": tf.io.decode_compressed(packed, "GZIP")}


SIGNATURES = ("upper", "busy", "picky", "scalar", "fixed", "distinct", "pair", "bytes", "rows", "unpack")


def save(path: Path, *, bias: float) -> Path:
    """Writes a version directory."""
    zoo = Zoo(bias)
    signatures = {name: getattr(zoo, name).get_concrete_function() for name in SIGNATURES}
    tf.saved_model.save(
        zoo, str(path), signatures={"serving_default": zoo.double.get_concrete_function(), **signatures}
    )
    return path


def publish(version: Path, base_path: Path, number: int) -> Path:
    """Copies a version directory into a model's folder the way it should be done: elsewhere first, then one rename."""
    base_path.mkdir(parents=True, exist_ok=True)
    copy = base_path / f"tmp-{number}"
    shutil.copytree(version, copy)
    return copy.rename(base_path / str(number))


def add_warmup(version: Path, requests: list[predict_pb2.PredictRequest]) -> None:
    """Writes warmup records into a version directory."""
    file = version / "assets.extra/tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
