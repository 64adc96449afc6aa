"""The HTTP gateway: pictures in over HTTP, cultures out, one gRPC call between."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from gateway.client import PredictionClient
    from gateway.settings import Settings

__all__ = ["create_app"]


def create_app(settings: "Settings | None" = None, client: "PredictionClient | None" = None) -> "Flask":
    """The gateway as a WSGI application. Raises SettingsError.

    Imports inside, because gunicorn's master reads gateway.settings before it forks: gRPC and prometheus_client must
    not be in that process.
    """
    from gateway.app import create_app as create

    return create(settings, client)
