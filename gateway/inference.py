"""Blueprint: the Open Inference Protocol (v2) over REST, for clients of KServe, Triton and MLServer."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from flask import Blueprint, Response, request

from gateway import context, uploads, v2
from gateway.classify import Classifier
from gateway.client import PredictionClient
from gateway.errors import NotFound, NotReady, Problem
from gateway.health import Readiness
from gateway.settings import Settings
from serving import contract

_OUTPUTS: Final = {
    contract.PROBABILITIES: ("FP32", [-1, -1]),
    contract.LABELS: ("BYTES", [-1, -1]),
    contract.DECISION: ("BYTES", [-1]),
    contract.OOD_SCORE: ("FP32", [-1]),
}


class Inference:
    """The routes and what they share."""

    def __init__(
        self, settings: Settings, classifier: Classifier, client: PredictionClient, readiness: Readiness
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._client = client
        self._readiness = readiness

    def blueprint(self) -> Blueprint:
        """The routes."""
        routes = Blueprint("inference", __name__, url_prefix="/v2")
        routes.get("")(self.server)
        routes.get("/health/live")(self.live)
        routes.get("/health/ready")(self.ready)
        for model in ("/models/<name>", "/models/<name>/versions/<int(max=9223372036854775807):number>"):
            routes.get(model)(self.model)
            routes.get(f"{model}/ready")(self.model_ready)
            routes.post(f"{model}/infer")(self.infer)
        return routes

    def server(self) -> Response:
        """Who answers."""
        try:
            ours = version("whence")
        except PackageNotFoundError:  # run from a checkout
            ours = "0"
        return _json({"name": "whence", "version": ours, "extensions": ["binary_tensor_data"]})

    def live(self) -> Response:
        """This process is alive."""
        return _json({"live": True})

    def ready(self) -> Response:
        """A picture sent here would be answered."""
        if problem := self._readiness.problem():
            raise problem
        return _json({"ready": True})

    def model(self, name: str, number: int | None = None) -> Response:
        """What goes in, what comes out."""
        states = self._states(name, number)
        tensors = [{"name": each, "datatype": kind, "shape": shape} for each, (kind, shape) in _OUTPUTS.items()]
        image = {"name": contract.INPUT, "datatype": "UINT8", "shape": list(v2.IMAGES_SHAPE)}
        versions = [str(each) for each, state in sorted(states.items()) if state == "AVAILABLE"]
        return _json(
            {
                "name": name,
                "versions": versions,
                "platform": "tensorflow_savedmodel",
                "inputs": [image],
                "outputs": tensors,
            }
        )

    def model_ready(self, name: str, number: int | None = None) -> Response:
        """The model, or one version of it, is loaded."""
        if "AVAILABLE" not in self._states(name, number).values():
            raise NotReady("the model is not AVAILABLE")
        return _json({"name": name, "ready": True})

    def infer(self, name: str, number: int | None = None) -> Response:
        """The model's outputs for pixels or for encoded pictures."""
        self._check_name(name)
        now = context.current()
        with self._classifier.admitted(now) as account:
            with now.stage("read"):
                body = uploads.read_body(request, self._settings, now, account)
                length = request.headers.get(v2.LENGTH_HEADER)
                question = v2.read(body, length, account, most=self._settings.max_pictures)
                if question.pictures is not None:
                    account.hold(len(body))  # they are copies
                    uploads.check_sizes(question.pictures, self._settings)
            del body
            account.hold(question.count * uploads.PIXEL_BYTES)
            pixels = question.pixels
            if pixels is None:
                decoded = self._classifier.decode(question.pictures or [], now)
                for each in decoded:
                    if isinstance(each, Problem):
                        raise each
                pixels = np.stack([each for each in decoded if not isinstance(each, Problem)])
            reply = self._classifier.ask(pixels, now, version=number)
        with now.stage("respond"):
            answer, json_length = v2.write(question, reply, name)
        if json_length is None:
            return Response(answer, content_type="application/json")
        return Response(answer, content_type="application/octet-stream", headers={v2.LENGTH_HEADER: str(json_length)})

    def _states(self, name: str, number: int | None) -> dict[int, str]:
        """States of the model's versions, or of the one.

        Raises NotFound, ModelUnavailable, ModelTimeout or ContractBroken.
        """
        self._check_name(name)
        states = self._client.versions(context.current().deadline)
        if number is None:
            return states
        if number not in states:
            raise NotFound(f"there is no version {number} of {name}")
        return {number: states[number]}

    def _check_name(self, name: str) -> None:
        if name != self._settings.model_name:
            raise NotFound(f"there is no model {name[:50]!r}")


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document), content_type="application/json")
