"""Blueprint: a picture comes in, its culture goes out."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from flask import Blueprint, Response, request

from gateway import context, explanations, uploads
from gateway.classify import Answer, Classifier, Made
from gateway.errors import BadRequest, Problem, of_picture
from gateway.explanations import Explainer, Seen, Wish
from gateway.replies import Prediction
from gateway.settings import Settings
from serving.images import ImageError, Picture

MAX_TOP_K: Final = 1000
NOTHING_MORE: Final = Wish()


class Predictions:
    """The two routes and what they share."""

    def __init__(self, settings: Settings, classifier: Classifier, explainer: Explainer) -> None:
        self._settings = settings
        self._classifier = classifier
        self._explainer = explainer

    def blueprint(self) -> Blueprint:
        """The routes."""
        routes = Blueprint("predictions", __name__)
        routes.post("/v1/predict")(self.predict)
        routes.post("/predict/")(self.predict_as_before)
        return routes

    def predict(self) -> Response:
        """Answer one picture with its prediction or problem, several with one or the other for each.

        Who asks for a heat map and would rather have a picture than JSON gets the overlay.
        """
        top_k = _top_k(request.args.get("top_k"))
        wish = explanations.wish(request.args)
        drawn = explanations.HEATMAP in wish.kinds and _prefers_png()
        one_only = "an overlay is of one picture; ask for application/json to explain several" if drawn else None
        with self._answered(wish, one_only) as (sent, answer):
            if len(sent) == 1:
                _single(answer)
            if drawn:
                return self._overlay(sent[0], answer, wish)
            model = {"name": self._settings.model_name, "version": answer.version}
            items = []
            for upload, result, pixels in zip(sent, answer.results, answer.pixels, strict=True):
                item = ({"filename": upload.filename} if upload.filename else {}) | _item(result, top_k)
                if wish.kinds and isinstance(result, Prediction) and pixels is not None:
                    item["explanation"] = self._explained(Seen(upload.data, pixels, result), model, wish)
                items.append(item)
            return _reply({"request_id": context.current().request_id, "model": model, "predictions": items})

    def predict_as_before(self) -> Response:
        """Answer as the project that Whence grew out of: one picture, one label."""
        with self._answered(one_only="this address takes one picture; /v1/predict takes several") as (_, answer):
            return _reply({"class_label": _single(answer).culture})

    def _explained(self, seen: Seen, model: dict[str, Any], wish: Wish) -> dict[str, Any]:
        """What was wished for, the picture itself included."""
        now = context.current()
        with now.stage("explain"):
            told = self._explainer.explain(seen, model, wish)
        if explanations.PREVIEW in wish.kinds:
            told[explanations.PREVIEW] = self._drawn(seen.data, explanations.preview)
        return told

    def _overlay(self, sent: uploads.Upload, answer: Answer, wish: Wish) -> Response:
        """The upright picture under its heat map, as PNG."""
        prediction = _single(answer)
        culture, heatmap = explanations.heatmap(prediction, wish)
        text = f"{culture}: {prediction.probability_of(culture):.3f} ({prediction.decision})"
        png = self._drawn(sent.data, lambda picture: heatmap.overlay(picture, text))
        return Response(png, content_type="image/png")

    def _drawn(self, data: bytes, draw: Callable[[Picture], Made]) -> Made:
        """What `draw` makes of a picture that was decoded before. Raises Expired, or the picture's problem."""
        try:
            return self._classifier.make(data, context.current(), draw)
        except ImageError as error:
            raise of_picture(error) from error

    @contextmanager
    def _answered(
        self, wish: Wish = NOTHING_MORE, one_only: str | None = None
    ) -> Iterator[tuple[list[uploads.Upload], Answer]]:
        """What was sent and what the model says to it; all limits hold until the end of the block.

        `one_only` says why several pictures are refused, before any is looked at.
        """
        now = context.current()
        with self._classifier.admitted(now) as account:
            with now.stage("read"):
                sent = uploads.read(request, self._settings, now, account)
            if one_only and len(sent) != 1:
                raise BadRequest(one_only)
            yield sent, self._classifier.classify([upload.data for upload in sent], now, signature=wish.signature)


def _top_k(text: str | None) -> int:
    if text is None:
        return MAX_TOP_K
    top_k = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else 0
    if not 1 <= top_k <= MAX_TOP_K:
        raise BadRequest(f"top_k is no whole number from 1 to {MAX_TOP_K}")
    return top_k


def _prefers_png() -> bool:
    """Whether the client would rather have a PNG than JSON."""
    return request.accept_mimetypes.best_match(("application/json", "image/png")) == "image/png"


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
