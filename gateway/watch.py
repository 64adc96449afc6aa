"""Whether today's pictures are like those the release was measured on: a sample is compared with its reference.

No picture and no embedding is kept, only a running mean and counts. What the model answers (cultures, decisions,
confidence) is counted for every picture elsewhere; embeddings need signature `explain`, so a share of requests asks it.
"""

import random
import threading
from pathlib import Path

import numpy as np

from gateway.metrics import Metrics
from gateway.replies import Reply
from gateway.settings import Settings, SettingsError
from serving.reference import BadReference, Reference, RunningMean


class Watch:
    """Compares a sample of what is seen with the reference; does nothing without one."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Read the reference. Raises SettingsError."""
        self._metrics = metrics
        self._share = settings.drift_sample
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

    def wants(self) -> bool:
        """Whether to look at the next request's embeddings: a coin for each, so that the sample is a fair one."""
        return self._reference is not None and random.random() < self._share  # noqa: S311

    def look(self, reply: Reply) -> None:
        """Compare the embeddings of a reply; another model's cannot be compared and are passed over."""
        if self._reference is None or reply.version != self._reference.model_version:
            return
        for prediction in reply.predictions:
            evidence = prediction.evidence
            if evidence is None or evidence.embedding.shape != self._centroid.shape:
                continue
            self._metrics.embedding_distance.observe(float(1 - evidence.embedding @ self._direction))
            with self._lock:
                self._mean.add(evidence.embedding)
                if self._mean.full:
                    self._metrics.centroid_distance.set(self._mean.distance(self._centroid))
