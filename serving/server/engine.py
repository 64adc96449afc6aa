"""What the server asks of whatever computes. Another engine implements Engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Spec:
    """What one tensor must be: `dtype` as a number of tensorflow.DataType; a dimension of None is any size."""

    dtype: int
    shape: tuple[int | None, ...] | None  # None: any rank


@dataclass(frozen=True)
class Signature:
    """One function of a model."""

    name: str
    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]
    defaults: Mapping[str, NDArray[Any]]  # inputs that a request may leave out

    @property
    def has_batch(self) -> bool:
        """True where dimension 0 of every tensor, in and out, is free: only then can requests share a run."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(spec.shape and spec.shape[0] is None for spec in specs)


class Servable(Protocol):
    """One loaded version of a model. Threads call `run` at the same time."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What can be called, by name."""

    @property
    def signature_def_map(self) -> Any:
        """The same as a tensorflow.serving.SignatureDefMap, for GetModelMetadata."""

    def widths(self, signature: str) -> tuple[bool, ...]:
        """The values of `narrow` that run something of their own, so each of them has to be warmed up."""

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        """All outputs of a signature; `narrow`: computed beside other runs, where that makes a difference.

        Raises:
            ServingError: The model refused these values.
        """

    def close(self) -> None:
        """Gives the memory back. Nothing is running and nothing will be."""


class Engine(Protocol):
    """Loads version directories."""

    @property
    def name(self) -> str:
        """For people: `tensorflow`."""

    @property
    def precision(self) -> str:
        """What convolutions and products are computed in: `float32` or `bfloat16`."""

    def load(self, path: Path) -> Servable:
        """Everything of one version, ready to run.

        Raises:
            Exception: Whatever is wrong with the directory; the text is shown in the model's status.
        """
