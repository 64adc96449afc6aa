"""Blueprint: /healthz tells of this process only, /readyz whether a picture sent here would be answered."""

import json
import logging
import threading
import time
from typing import Final

import numpy as np
from flask import Blueprint, Response

from gateway import lifecycle
from gateway.client import PredictionClient
from gateway.context import Deadline
from gateway.errors import NotReady, Problem
from serving.contract import IMAGE_SIZE

log = logging.getLogger("whence.health")

FRESH_S: Final = 1.0  # how long a verdict stands
LOOK_TIMEOUT_S: Final = 5.0  # the servers' status and a prediction together
# An answer to somebody's picture this recently proves as much as a prediction of our own, and costs nothing.
PROOF_S: Final = 10.0
_BLACK: Final = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


class Readiness:
    """Looks at the model servers, one look at a time."""

    def __init__(self, client: PredictionClient, *, fresh_s: float = FRESH_S) -> None:
        self._client = client
        self._fresh_s = fresh_s
        self._look = threading.Lock()
        self._looked = 0.0  # time.monotonic() of the last verdict
        self._problem: Problem | None = NotReady("the first look at the model is not finished")

    def problem(self) -> Problem | None:
        """Why not to send requests here, or None. While one caller looks, the others get the last verdict."""
        if lifecycle.draining.is_set():
            return NotReady("the gateway is stopping")
        if time.monotonic() - self._looked >= self._fresh_s and self._look.acquire(blocking=False):
            try:
                before, self._problem = self._problem, self._examine()
                self._looked = time.monotonic()
                _tell(before, self._problem)
            finally:
                self._look.release()
        return self._problem

    def _examine(self) -> Problem | None:
        deadline = Deadline.after(LOOK_TIMEOUT_S)
        try:
            states = self._client.versions(deadline)
            if "AVAILABLE" not in states.values():
                return NotReady(f"no version of the model is AVAILABLE: {states}")
            proven = self._client.well and time.monotonic() - self._client.answered <= PROOF_S
            if not proven:
                self._client.predict(_BLACK, deadline=deadline)
        except Problem as problem:
            return NotReady(problem.detail)
        return None


def _tell(before: Problem | None, now: Problem | None) -> None:
    """Log a verdict that is not the one before it."""
    if now and (not before or before.detail != now.detail):
        log.warning("not ready: %s", now.detail)
    elif before and not now:
        log.info("ready")


def blueprint(readiness: Readiness) -> Blueprint:
    """The two routes."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def live() -> Response:
        return Response(json.dumps({"status": "alive"}), content_type="application/json")

    @routes.get("/readyz")
    def ready() -> Response:
        problem = readiness.problem()
        if problem:
            raise problem
        return Response(json.dumps({"status": "ready"}), content_type="application/json")

    return routes
