"""Whether today's pictures are like those the release was measured on: each is compared with its reference.

No picture and no embedding is kept, only a running mean and counts. What the model answers (cultures, decisions,
confidence) is counted elsewhere.
"""

import threading
from pathlib import Path

import numpy as np

from gateway.metrics import Metrics
from gateway.replies import Reply
from gateway.settings import Settings, SettingsError
from serving.reference import BadReference, Reference, RunningMean


class Watch:
    """Compares what is seen with the reference; does nothing without one."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Read the reference. Raises SettingsError."""
        self._metrics = metrics
        self._lock = threading.Lock()
        self._reference: Reference | None = None
        if not settings.reference:
            return
        try:
            self._reference = reference = Reference.load(Path(settings.reference))
        except BadReference as error:
            raise SettingsError(f"WHENCE_REFERENCE is {settings.reference!r}: {error}") from error
        self._centroid = np.array(reference.centroid)
        self._direction = self._centroid / max(float(np.linalg.norm(self._centroid)), 1e-12)
        self._mean = RunningMean(reference.window, len(reference.centroid))
        metrics.saw_reference(reference)

    def look(self, reply: Reply) -> None:
        """Compare the embeddings of a reply; another model's cannot be compared and are passed over."""
        if self._reference is None or reply.version != self._reference.model_version:
            return
        for prediction in reply.predictions:
            embedding = prediction.embedding
            if embedding is None or embedding.shape != self._centroid.shape:
                continue
            self._metrics.embedding_distance.observe(float(1 - embedding @ self._direction))
            with self._lock:
                self._mean.add(embedding)
                if self._mean.full:
                    self._metrics.centroid_distance.set(self._mean.distance(self._centroid))
