"""What a picture resembles: the index that belongs to the model that answered, or a plain word why there is none."""

import logging
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.replies import Prediction
from serving.index import FACTS, BadIndex, Index

log = logging.getLogger("whence.neighbours")


class Neighbours:
    """Indexes by model version, opened when first asked for and again when they were replaced on disk."""

    def __init__(self, folder: str) -> None:
        """`folder` holds a folder for each model version; empty when there is none."""
        self._folder = Path(folder) if folder else None
        self._open: dict[int, tuple[object, Index]] = {}
        self._lock = threading.Lock()

    def of(self, prediction: Prediction, model_version: int, count: int) -> dict[str, Any]:
        """The `count` nearest objects and the index they come from; else `objects` is empty and `notice` says why."""
        if self._folder is None:
            return _none("this service was started without an index of objects")
        index = self._index(self._folder / str(model_version), model_version)
        if index is None:
            return _none(f"there is no index of objects for version {model_version} of the model")
        facts = index.facts
        made_by = prediction.evidence and prediction.evidence.provenance.get("release_sha256")
        if facts.model_version != model_version or (made_by and made_by != facts.release_sha256):
            # Embeddings of two models cannot be compared: any answer would be wrong, and look right.
            return _none("the index of objects was made by another model than the one that answered", facts.version)
        if prediction.embedding is None or prediction.embedding.shape != (facts.dimensions,):
            return _none("the model's embedding does not fit the index of objects", facts.version)
        found = index.nearest(prediction.embedding, count)
        return {
            "index": {"version": facts.version, "objects": facts.objects, "about": facts.about},
            "objects": [asdict(each.object) | {"similarity": round(min(1.0, each.similarity), 4)} for each in found],
        }

    def version(self, model_version: int) -> str | None:
        """The version of the index that answers for this model."""
        index = self._index(self._folder / str(model_version), model_version) if self._folder else None
        return index.facts.version if index else None

    def _index(self, folder: Path, model_version: int) -> Index | None:
        """The index in `folder`, as it is there now; the one that was there before while it is being replaced."""
        with self._lock:
            opened = self._open.get(model_version)
            try:
                state = (folder / FACTS).stat()
            except OSError:
                return opened[1] if opened else None
            identity = state.st_ino, state.st_mtime_ns
            if opened is None or opened[0] != identity:
                try:
                    opened = identity, Index(folder)
                except BadIndex as error:
                    log.error("index refused: %s", error)
                    return opened[1] if opened else None
                self._open[model_version] = opened
                facts = opened[1].facts
                log.info(
                    "index %s of %d objects opened for model version %d", facts.version, facts.objects, model_version
                )
            return opened[1]


def _none(notice: str, version: str | None = None) -> dict[str, Any]:
    return {"index": {"version": version} if version else None, "objects": [], "notice": notice}
