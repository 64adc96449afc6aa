"""Runs SavedModels in TensorFlow sessions, the way tensorflow_model_server does.

A session, rather than `tf.saved_model.load`: it loads any SavedModel of TensorFlow 1 or 2 without rebuilding its Python
objects, takes its thread counts and its precision from its own configuration, and gives all its memory back when it is
closed.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, rewriter_config_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from serving.server import cpu, errors
from serving.server.constants import graph_of_constants
from serving.server.engine import Arrays, Signature, Spec

_OUR_CODE: Final = {
    tf.errors.InvalidArgumentError: errors.InvalidArgument,
    tf.errors.OutOfRangeError: errors.InvalidArgument,
    tf.errors.FailedPreconditionError: errors.FailedPrecondition,
    tf.errors.ResourceExhaustedError: errors.ResourceExhausted,
}
_Run = Callable[..., Sequence[Any]]


class TensorFlowEngine:
    """Loads SavedModels with one set of thread counts and one precision.

    Args:
        intra_op: Threads inside one operation; shared by all sessions of the process.
        inter_op: Operations of one run that may run side by side.
        precision: `bfloat16` has oneDNN compute convolutions and products in it, the file stays float32.
        constant: Whether to make constants of the weights, see `constants`. None: with AMX in bfloat16. There a lone
            picture takes two thirds of the time and a server full of them does a fifth more, for 300 MiB; elsewhere
            it is an eighth and nothing.
    """

    name = "tensorflow"

    def __init__(self, *, intra_op: int, inter_op: int, precision: str, constant: bool | None = None) -> None:
        self.precision = precision
        self._constant = precision == "bfloat16" and cpu.multiplies_tiles() if constant is None else constant
        self._config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=intra_op, inter_op_parallelism_threads=inter_op
        )
        if precision == "bfloat16":
            rewrites = self._config.graph_options.rewrite_options
            rewrites.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON

    def load(self, path: Path) -> "SavedModel":
        """Loads the part of a SavedModel that is tagged `serve`."""
        if not (path / "saved_model.pb").is_file():
            raise FileNotFoundError(f"{path} has no saved_model.pb")
        session = tf.compat.v1.Session(graph=tf.Graph(), config=self._config)
        try:
            with session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(path))
            if self._constant:
                session = self._with_constants(session, meta_graph.signature_def.values())
            return SavedModel(session, meta_graph.signature_def)
        except tf.errors.OpError as error:
            session.close()
            raise ValueError(_reason(error.message)) from error
        except BaseException:
            session.close()
            raise

    def _with_constants(self, session: Any, signature_defs: Iterable[meta_graph_pb2.SignatureDef]) -> Any:
        """The same in a session without variables, where that can be; the other one is closed then."""
        dense = [each for each in signature_defs if _is_dense(each)]
        tensors = [info.name for each in dense for info in (*each.inputs.values(), *each.outputs.values())]
        graph = graph_of_constants(session, tensors)
        if graph is None:
            return session
        session.close()
        return tf.compat.v1.Session(graph=graph, config=self._config)


class SavedModel:
    """One loaded SavedModel."""

    def __init__(self, session: Any, signature_defs: Mapping[str, meta_graph_pb2.SignatureDef]) -> None:
        self._session = session
        self._defs = {name: signature for name, signature in signature_defs.items() if _is_dense(signature)}
        self.signatures = {name: _signature(name, signature) for name, signature in self._defs.items()}
        self.signature_def_map = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in signature_defs.items():
            self.signature_def_map.signature_def[name].CopyFrom(signature)
        self._callables: dict[str, _Run] = {}
        self._lock = threading.Lock()

    def widths(self, signature: str) -> tuple[bool, ...]:
        """One: every run is computed by the same graph."""
        return (False,)

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        """All outputs of a signature; which of them the caller wants is sorted out later.

        One set of outputs per signature means one optimised graph per signature, made in warmup, never under load.
        """
        names = self.signatures[signature]
        try:
            values = self._callable(signature)(*(inputs[name] for name in names.inputs))
        except tf.errors.OpError as error:
            known = next((ours for theirs, ours in _OUR_CODE.items() if isinstance(error, theirs)), None)
            if known is None:
                raise
            raise known(_reason(error.message)) from error
        return dict(zip(names.outputs, values, strict=True))

    def close(self) -> None:
        """Frees variables and graphs."""
        self._callables.clear()
        self._session.close()

    def _callable(self, signature: str) -> _Run:
        with self._lock:
            if signature not in self._callables:
                definition = self._defs[signature]
                names = self.signatures[signature]
                self._callables[signature] = self._session.make_callable(
                    [definition.outputs[name].name for name in names.outputs],
                    feed_list=[definition.inputs[name].name for name in names.inputs],
                )
            return self._callables[signature]


def _is_dense(signature: meta_graph_pb2.SignatureDef) -> bool:
    """True for a signature of plain tensors; the initialisation of the model has no outputs to call it for."""
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return bool(signature.method_name) and all(info.WhichOneof("encoding") == "name" for info in infos)


def _signature(name: str, raw: meta_graph_pb2.SignatureDef) -> Signature:
    return Signature(
        name=name,
        inputs={key: _spec(raw.inputs[key]) for key in sorted(raw.inputs)},
        outputs={key: _spec(raw.outputs[key]) for key in sorted(raw.outputs)},
        defaults={key: tf.make_ndarray(value) for key, value in raw.defaults.items()},
    )


def _spec(info: meta_graph_pb2.TensorInfo) -> Spec:
    if info.tensor_shape.unknown_rank:
        return Spec(info.dtype, None)
    return Spec(info.dtype, tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim))


def _reason(message: str) -> str:
    """What happened, without the node that says so, the heading above it and the stack below."""
    lines = (line.split("[[{{", 1)[0].strip() for line in message.splitlines())
    return next((line for line in lines if line and line != "Graph execution error:"), "the model refused these values")
