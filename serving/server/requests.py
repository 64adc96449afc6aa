"""PredictRequest -> what to run, and its outputs -> PredictResponse, checked against the signature."""

from collections.abc import Iterable
from dataclasses import dataclass

from tensorflow_serving.apis import predict_pb2

from serving.server import tensors
from serving.server.engine import Arrays, Servable, Signature
from serving.server.errors import FailedPrecondition, InvalidArgument

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Call:
    """A request that fits its signature."""

    signature: Signature
    inputs: Arrays
    rows: int | None  # None: cannot share a run with others
    outputs: tuple[str, ...]  # what the caller wants to see


def read(request: predict_pb2.PredictRequest, servable: Servable) -> Call:
    """Checks names, dtypes and shapes before anything is copied.

    Raises:
        FailedPrecondition: The model has no such signature.
        InvalidArgument: Anything else that does not fit; says what was sent and what was expected.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise FailedPrecondition(
            f"serving signature {name!r} not found, expected one of: {_listed(servable.signatures)}"
        )
    _check_names(request, signature)
    shapes = {key: tensors.check(key, tensor, signature.inputs[key]) for key, tensor in request.inputs.items()}
    rows = None
    if signature.has_batch and len(shapes) == len(signature.inputs):
        sizes = {shape[0] for shape in shapes.values()}
        if len(sizes) > 1:
            text = ", ".join(f"{key} {tensors.shape_text(shape)}" for key, shape in sorted(shapes.items()))
            raise InvalidArgument(f"inputs must have equal sizes in dimension 0, the batch; got {text}")
        rows = sizes.pop() or None  # a batch of none has nothing to share
    sent = {key: tensors.to_numpy(key, tensor) for key, tensor in request.inputs.items()}
    inputs = {key: sent[key] if key in sent else signature.defaults[key] for key in signature.inputs}
    return Call(signature, inputs, rows, _wanted(request, signature))


def reply(call: Call, outputs: Arrays, *, model: str, version: int) -> predict_pb2.PredictResponse:
    """The outputs that the caller asked for, and who answered."""
    response = predict_pb2.PredictResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.model_spec.signature_name = call.signature.name
    for name in call.outputs:
        response.outputs[name].CopyFrom(tensors.to_proto(outputs[name]))
    return response


def _check_names(request: predict_pb2.PredictRequest, signature: Signature) -> None:
    extra = set(request.inputs) - set(signature.inputs)
    missing = set(signature.inputs) - set(request.inputs) - set(signature.defaults)
    if extra or missing:
        raise InvalidArgument(
            f"inputs do not match signature {signature.name!r}: unknown {{{_listed(extra)}}},"
            f" missing {{{_listed(missing)}}}, expected {{{_listed(signature.inputs)}}}"
        )


def _wanted(request: predict_pb2.PredictRequest, signature: Signature) -> tuple[str, ...]:
    wanted = tuple(request.output_filter)
    if unknown := set(wanted) - set(signature.outputs):
        raise InvalidArgument(
            f"output_filter names unknown outputs {{{_listed(unknown)}}}, expected of {{{_listed(signature.outputs)}}}"
        )
    if len(set(wanted)) != len(wanted):
        raise InvalidArgument("output_filter names an output twice")
    return wanted or tuple(signature.outputs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
