"""One version loaded twice: for a run that has all cores to itself, and for runs side by side, on one core each.

A run on several threads makes all of them wait, after each operation, for the one that something else (the gateway, a
neighbour) had taken the core from. Runs on one thread each never wait for one another, and under load they use the
cores to the last; but a lone request would take as many times as long. So: both, and batching chooses for each run.
For OpenVINO; runs of a TensorFlow session share its threads, and fill each other's gaps by themselves.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.server.engine import Arrays, Engine, Servable, Signature


class TwoWidths:
    """Loads each version with both engines.

    Args:
        wide: Runs one thing at a time on all cores.
        narrow: Runs several at a time on few threads each; may leave out signatures that are seldom asked for.
    """

    def __init__(self, wide: Engine, narrow: Engine) -> None:
        self._wide, self._narrow = wide, narrow
        self.name, self.precision = wide.name, wide.precision

    def load(self, path: Path) -> "Both":
        """Everything of one version, twice."""
        wide = self._wide.load(path)
        try:
            return Both(wide, self._narrow.load(path))
        except BaseException:
            wide.close()
            raise


class Both:
    """One loaded version."""

    def __init__(self, wide: Servable, narrow: Servable) -> None:
        self._wide, self._narrow = wide, narrow

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What can be called, by name."""
        return self._wide.signatures

    @property
    def signature_def_map(self) -> Any:
        """The same as a tensorflow.serving.SignatureDefMap."""
        return self._wide.signature_def_map

    def widths(self, signature: str) -> tuple[bool, ...]:
        """Both, where both were loaded."""
        return (False, True) if signature in self._narrow.signatures else (False,)

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        """All outputs of a signature, computed on all cores, or on one beside other runs."""
        chosen = self._narrow if narrow and signature in self._narrow.signatures else self._wide
        return chosen.run(signature, inputs)

    def close(self) -> None:
        """Gives the memory of both back."""
        self._wide.close()
        self._narrow.close()
