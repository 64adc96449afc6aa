"""A model server's reply, held against serving.contract: what passes is a Prediction, the rest is ContractBroken."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway import evidence
from gateway.errors import ContractBroken
from gateway.evidence import Evidence
from gateway.tensors import to_numpy
from gateway.wire import prediction_pb2 as pb
from serving import contract

# bfloat16 has 8 bits of mantissa; a softmax over some dozens of classes computed in it is off by less than this.
SUM_TOLERANCE: Final = 0.02
UNIT_TOLERANCE: Final = 0.02  # of an embedding's length, for the same reason
MAX_CLASSES: Final = 10_000
_SPECS: Final = {spec.name: spec for spec in contract.EXPLAIN_OUTPUTS}


@dataclass(frozen=True)
class Prediction:
    """What the model said about one picture; cultures sorted by falling probability."""

    cultures: tuple[str, ...]
    probabilities: tuple[float, ...]
    decision: str
    ood_score: float | None = None
    thresholds: tuple[float, float] | None = None  # least probability accepted, greatest ood_score known
    embedding: NDArray[np.float32] | None = None  # [D], unit length
    evidence: Evidence | None = None  # of signature `explain` only

    @property
    def culture(self) -> str:
        """The likeliest culture."""
        return self.cultures[0]

    @property
    def probability(self) -> float:
        """The likeliest culture's probability."""
        return self.probabilities[0]

    def probability_of(self, culture: str) -> float:
        """Any culture's probability. Raises ValueError for an unknown one."""
        return self.probabilities[self.cultures.index(culture)]


@dataclass(frozen=True)
class Reply:
    """The model server's answer to one batch."""

    version: int  # the one that really answered
    labels: tuple[str, ...]  # in the model's own order
    predictions: tuple[Prediction, ...]


def read(response: pb.PredictResponse, *, rows: int, model_name: str, signature: str = contract.SERVING) -> Reply:
    """The reply of `signature` to a batch of `rows` pictures. Raises ContractBroken."""
    required = {*contract.REQUIRED_OUTPUTS, *(evidence.REQUIRED if signature == contract.EXPLAIN else ())}
    try:
        promised = (spec.name for spec in contract.SIGNATURES[signature])
        names = [name for name in promised if name in required or name in response.outputs]
        outputs = {name: _output(response.outputs, name) for name in names}
        _check_rows(outputs, rows)
        labels = _labels(outputs[contract.LABELS])
        probabilities = _probabilities(outputs[contract.PROBABILITIES], labels)
        decisions = _decisions(outputs.get(contract.DECISION), rows)
        scores = _scores(outputs.get(contract.OOD_SCORE), rows)
        thresholds = _thresholds(outputs.get(contract.THRESHOLDS), rows)
        embeddings = _embeddings(outputs.get(contract.EMBEDDING), rows)
        evidences = evidence.read(outputs, labels) if signature == contract.EXPLAIN else [None] * rows
        version = _version(response.model_spec, model_name)
    except ValueError as error:
        raise ContractBroken(str(error)) from error
    ranks = np.argsort(-probabilities, axis=1, kind="stable")  # [N, C]
    return Reply(
        version,
        labels,
        tuple(
            Prediction(tuple(labels[i] for i in rank), tuple(row[rank].tolist()), *known)
            for rank, row, *known in zip(
                ranks, probabilities, decisions, scores, thresholds, embeddings, evidences, strict=True
            )
        ),
    )


def _output(outputs: Mapping[str, pb.TensorProto], name: str) -> NDArray[Any]:
    """Output `name`, with the dtype and the rank that the contract promises."""
    if name not in outputs:
        raise ValueError(f"output {name!r} is missing")
    tensor, spec = outputs[name], _SPECS[name]
    try:
        array = to_numpy(tensor)
    except ValueError as error:
        raise ValueError(f"output {name!r}: {error}") from error
    dtype = "string" if tensor.dtype == pb.DT_STRING else str(array.dtype)
    if dtype != spec.dtype:
        raise ValueError(f"output {name!r} is {dtype}, promised is {spec.dtype}")
    if array.ndim != len(spec.shape):
        raise ValueError(f"output {name!r} has shape {array.shape}, promised is {spec.shape}")
    return array


def _check_rows(outputs: Mapping[str, NDArray[Any]], rows: int) -> None:
    for name, array in outputs.items():
        if len(array) != rows:
            raise ValueError(f"output {name!r} has {len(array)} rows for {rows} pictures")


def _labels(array: NDArray[Any]) -> tuple[str, ...]:
    """The labels, from [N, C]: unique, not empty, the same in every row."""
    if not 1 <= array.shape[1] <= MAX_CLASSES:
        raise ValueError(f"{array.shape[1]} labels")
    if (array != array[0]).any():
        raise ValueError("the rows have different labels")
    try:
        labels = tuple(label.decode() for label in array[0])
    except UnicodeDecodeError as error:
        raise ValueError("a label is not UTF-8") from error
    if len(set(labels)) != len(labels) or not all(labels):
        raise ValueError("labels are empty or not unique")
    return labels


def _probabilities(array: NDArray[Any], labels: tuple[str, ...]) -> NDArray[Any]:
    """The probabilities [N, C]: one for each label, finite, in 0..1, each row summing to one."""
    if array.shape[1] != len(labels):
        raise ValueError(f"{array.shape[1]} probabilities for {len(labels)} labels")
    if not np.isfinite(array).all():
        raise ValueError("a probability is not finite")
    if (array < 0).any() or (array > 1 + SUM_TOLERANCE).any():
        raise ValueError("a probability is outside 0..1")
    if (abs(array.sum(axis=1) - 1) > SUM_TOLERANCE).any():
        raise ValueError("probabilities do not sum to one")
    return array.clip(0, 1)


def _decisions(array: NDArray[Any] | None, rows: int) -> list[str]:
    """Decisions [N]; a servable without them accepts everything."""
    if array is None:
        return [contract.ACCEPTED] * rows
    decisions = [value.decode(errors="replace") for value in array]
    for decision in decisions:
        if decision not in contract.DECISIONS:
            raise ValueError(f"decision {decision!r} is none of {contract.DECISIONS}")
    return decisions


def _scores(array: NDArray[Any] | None, rows: int) -> list[float | None]:
    """Scores [N] of how strange each picture is; None without them."""
    if array is None:
        return [None] * rows
    if not np.isfinite(array).all():
        raise ValueError("an ood_score is not finite")
    return [float(value) for value in array]


def _thresholds(array: NDArray[Any] | None, rows: int) -> list[tuple[float, float] | None]:
    """Thresholds [N, 2]; None without them. They may be infinite: then every picture passes."""
    if array is None:
        return [None] * rows
    if array.shape[1] != 2 or np.isnan(array).any():
        raise ValueError("thresholds are not two numbers a row")
    return [(float(least), float(greatest)) for least, greatest in array]


def _embeddings(array: NDArray[Any] | None, rows: int) -> list[NDArray[np.float32] | None]:
    """Embeddings [N, D] of unit length; None without them."""
    if array is None:
        return [None] * rows
    if not (abs(np.linalg.norm(array, axis=1) - 1) <= UNIT_TOLERANCE).all():  # written so that NaN fails too
        raise ValueError("an embedding has not unit length")
    return list(array)


def _version(spec: pb.ModelSpec, model_name: str) -> int:
    if spec.name != model_name:
        raise ValueError(f"model {spec.name!r} answered instead of {model_name!r}")
    return spec.version.value
