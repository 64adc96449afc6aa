"""Blueprint: GET /v1/models tells which versions of the model are there."""

import json

from flask import Blueprint, Response

from gateway import context
from gateway.client import PredictionClient
from gateway.settings import Settings


def blueprint(settings: Settings, client: PredictionClient) -> Blueprint:
    """The route."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models")
    def models() -> Response:
        states = client.versions(context.current().deadline)
        versions = [{"version": version, "state": states[version]} for version in sorted(states)]
        document = {"models": [{"name": settings.model_name, "versions": versions}]}
        return Response(json.dumps(document), content_type="application/json")

    return routes
