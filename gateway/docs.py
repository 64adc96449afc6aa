"""Blueprint: the OpenAPI document and a page to read it."""

from flask import Blueprint

from gateway.settings import Settings


def blueprint(settings: Settings) -> Blueprint:
    """The two routes."""
    return Blueprint("docs", __name__)
