"""Blueprint: a picture comes in, its culture goes out."""

import json
import re
from contextlib import ExitStack
from typing import Any, Final

from flask import Blueprint, Response, request

from gateway import context, uploads
from gateway.classify import Answer, Classifier
from gateway.errors import BadRequest, Problem
from gateway.limits import ByteBudget
from gateway.metrics import Metrics
from gateway.replies import Prediction
from gateway.settings import Settings

MAX_TOP_K: Final = 1000


class Predictions:
    """The two routes and what they share."""

    def __init__(self, settings: Settings, classifier: Classifier, metrics: Metrics) -> None:
        self._settings = settings
        self._classifier = classifier
        self._metrics = metrics
        self._bytes = ByteBudget(settings.max_held_bytes)

    def blueprint(self) -> Blueprint:
        """The routes."""
        routes = Blueprint("predictions", __name__)
        routes.post("/v1/predict")(self.predict)
        routes.post("/predict/")(self.predict_as_before)
        return routes

    def predict(self) -> Response:
        """Answer one picture with its prediction or problem, several with one or the other for each."""
        top_k = _top_k(request.args.get("top_k"))
        sent, answer = self._answer()
        if len(sent) == 1:
            _single(answer)
        return _reply(
            {
                "request_id": context.current().request_id,
                "model": {"name": self._settings.model_name, "version": answer.version},
                "predictions": [
                    ({"filename": upload.filename} if upload.filename else {}) | _item(result, top_k)
                    for upload, result in zip(sent, answer.results, strict=True)
                ],
            }
        )

    def predict_as_before(self) -> Response:
        """Answer as the project that Whence grew out of: one picture, one label."""
        sent, answer = self._answer()
        if len(sent) != 1:
            raise BadRequest("this address takes one picture; /v1/predict takes several")
        return _reply({"class_label": _single(answer).culture})

    def _answer(self) -> tuple[list[uploads.Upload], Answer]:
        """Read the request and classify its pictures, inside all limits."""
        now = context.current()
        with ExitStack() as held:
            with now.stage("wait"):
                held.enter_context(self._classifier.gate.place(now.deadline))
            held.enter_context(self._metrics.in_flight.track_inprogress())
            account = held.enter_context(self._bytes.account())
            with now.stage("read"):
                sent = uploads.read(request, self._settings, now, account)
            return sent, self._classifier.classify([upload.data for upload in sent], now)


def _top_k(text: str | None) -> int:
    if text is None:
        return MAX_TOP_K
    top_k = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else 0
    if not 1 <= top_k <= MAX_TOP_K:
        raise BadRequest(f"top_k is no whole number from 1 to {MAX_TOP_K}")
    return top_k


def _single(answer: Answer) -> Prediction:
    """The only prediction; the problem of a single picture is the problem of the request."""
    result = answer.results[0]
    if isinstance(result, Problem):
        raise result
    return result


def _item(result: Prediction | Problem, top_k: int) -> dict[str, Any]:
    if isinstance(result, Problem):
        return {"problem": result.document()}
    pairs = zip(result.cultures[:top_k], result.probabilities[:top_k], strict=True)
    return {
        "culture": result.culture,
        "probability": round(result.probability, 6),
        "decision": result.decision,
        "top": [{"culture": culture, "probability": round(probability, 6)} for culture, probability in pairs],
    }


def _reply(document: dict[str, Any]) -> Response:
    with context.current().stage("respond"):
        return Response(json.dumps(document, ensure_ascii=False), content_type="application/json")
