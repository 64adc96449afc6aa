"""Runs what `python -m training export --precision int8` writes: OpenVINO's intermediate representation, on the CPU.

Needs the extra `int8`. OpenVINO Model Server reads the same version directories; it knows no signatures, so it answers
every request with all outputs. Here the graph's own notes say which outputs belong to which signature.
"""

from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from serving.server import cpu
from serving.server.engine import Arrays, Signature, Spec
from serving.server.errors import InvalidArgument
from serving.server.requests import DEFAULT_SIGNATURE
from serving.server.tensors import check_shape, shape_text

IR: Final = "model.xml"  # beside it: model.bin
NOTES: Final = "signatures"  # runtime information of the graph: signature -> names of its outputs, with commas
METHOD: Final = "tensorflow/serving/predict"

_DTYPES: Final = {
    "f32": types_pb2.DT_FLOAT,
    "f64": types_pb2.DT_DOUBLE,
    "i8": types_pb2.DT_INT8,
    "i16": types_pb2.DT_INT16,
    "i32": types_pb2.DT_INT32,
    "i64": types_pb2.DT_INT64,
    "u8": types_pb2.DT_UINT8,
    "u16": types_pb2.DT_UINT16,
    "u32": types_pb2.DT_UINT32,
    "u64": types_pb2.DT_UINT64,
    "boolean": types_pb2.DT_BOOL,
    "string": types_pb2.DT_STRING,
}


class OpenVinoEngine:
    """Loads IRs that were made for int8.

    Args:
        threads: Threads inside one run.
        runs: Runs at the same time.
        only: The one signature to compile; None: all.
    """

    name = "openvino"
    precision = "int8"

    def __init__(self, *, threads: int, runs: int, only: str | None = None) -> None:
        self._core, self._runs, self._only = ov.Core(), runs, only
        self._settings = {
            "INFERENCE_NUM_THREADS": threads * runs,
            "NUM_STREAMS": runs,
            # What is not int8: a tenth more pictures in bfloat16 where the CPU is quick at it, and the same accuracy.
            "INFERENCE_PRECISION_HINT": "bf16" if cpu.bfloat16_is_quick() else "f32",
            # The gateway, and whatever else runs here, shares these cores.
            "ENABLE_CPU_PINNING": False,
        }

    def load(self, path: Path) -> "IntermediateRepresentation":
        """Compiles each signature for this CPU."""
        return IntermediateRepresentation(self.compiled(path), self._runs)

    def compiled(self, path: Path) -> dict[str, ov.CompiledModel]:
        """Each signature's graph, as this CPU computes it."""
        if not (path / IR).is_file():
            raise FileNotFoundError(f"{path} has no {IR}; `python -m training export --precision int8` makes one")
        graph = self._core.read_model(path / IR)
        return {
            name: self._core.compile_model(_part(graph, outputs), "CPU", self._settings)
            for name, outputs in _signatures(graph).items()
            if self._only in (None, name)
        }


class IntermediateRepresentation:
    """One loaded version: a compiled graph for each signature."""

    def __init__(self, compiled: Mapping[str, ov.CompiledModel], runs: int) -> None:
        self.signatures = {name: _signature(name, graph) for name, graph in compiled.items()}
        self.signature_def_map = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.signatures.items():
            self.signature_def_map.signature_def[name].CopyFrom(_definition(signature))
        # A request object runs one thing at a time and keeps its buffers: as many as there are runs, made once.
        self._idle: dict[str, SimpleQueue[ov.InferRequest]] = {}
        for name, graph in compiled.items():
            self._idle[name] = SimpleQueue()
            for _ in range(runs):
                self._idle[name].put(graph.create_infer_request())

    def widths(self, signature: str) -> tuple[bool, ...]:
        """One: every run is computed by the same graph."""
        return (False,)

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        """All outputs of a signature, copied out of OpenVINO's buffers.

        Raises:
            InvalidArgument: A shape that the signature does not have, or one that holds no values.
            RuntimeError: OpenVINO failed; it has no kinds of errors that would tell the caller's fault from ours.
        """
        names = self.signatures[signature]
        for name, spec in names.inputs.items():
            check_shape(name, inputs[name].shape, spec)
            # A node that cannot take an empty batch fails, and on one thread OpenVINO 2026.4 keeps silent: it answers
            # what it answered before, and does so again to the next callers who send as many rows as that run had.
            if not inputs[name].size:
                raise InvalidArgument(
                    f"input {name!r} has shape {shape_text(inputs[name].shape)}, which holds no values"
                )
        request = self._idle[signature].get()
        try:
            found = request.infer({name: inputs[name] for name in names.inputs}, share_inputs=True)
            return {name: _as_tensorflow_has_it(found[name]) for name in names.outputs}
        finally:
            self._idle[signature].put(request)

    def close(self) -> None:
        """Lets go of the compiled graphs."""
        self._idle.clear()


def _signatures(graph: ov.Model) -> dict[str, list[str]]:
    """Signature -> names of its outputs; a graph without notes has one signature with everything."""
    if not graph.has_rt_info([NOTES]):
        return {DEFAULT_SIGNATURE: [output.get_any_name() for output in graph.outputs]}
    notes = graph.get_rt_info([NOTES]).astype(dict)
    return {str(name): str(outputs.astype(str)).split(",") for name, outputs in notes.items()}


def _part(graph: ov.Model, outputs: list[str]) -> ov.Model:
    """The graph that computes no more than these outputs; it shares its weights with the whole."""
    part = graph.clone()
    for output in part.outputs:
        if output.get_any_name() not in outputs:
            part.remove_result(output.get_node())
    return part


def _signature(name: str, graph: ov.CompiledModel) -> Signature:
    return Signature(
        name=name,
        inputs={port.get_any_name(): _spec(port) for port in graph.inputs},
        outputs={port.get_any_name(): _spec(port) for port in sorted(graph.outputs, key=lambda p: p.get_any_name())},
        defaults={},
    )


def _spec(port: Any) -> Spec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    return Spec(_DTYPES[port.get_element_type().get_type_name()], shape)


def _definition(signature: Signature) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef(method_name=METHOD)
    for tensors, specs in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
        for name, spec in specs.items():
            tensors[name].name, tensors[name].dtype = name, spec.dtype
            for size in spec.shape or ():
                tensors[name].tensor_shape.dim.add(size=-1 if size is None else size)
    return definition


def _as_tensorflow_has_it(array: NDArray[Any]) -> NDArray[Any]:
    """Words as bytes; numbers as they are."""
    return np.char.encode(array, "utf-8").astype(object) if array.dtype.kind == "U" else array
