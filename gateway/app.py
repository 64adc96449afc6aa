"""create_app wires the parts together; no logic lives here."""

from flask import Flask

from gateway import access, docs, errors, feedback, headers, health, models, requests
from gateway.classify import Classifier
from gateway.client import PredictionClient
from gateway.explanations import Explainer
from gateway.feedback.stores import open_store
from gateway.health import Readiness
from gateway.inference import Inference
from gateway.metrics import Metrics
from gateway.neighbours import Neighbours
from gateway.page import page
from gateway.predictions import Predictions
from gateway.settings import Settings
from gateway.tracing import Tracing, from_settings


def create_app(
    settings: Settings | None = None, client: PredictionClient | None = None, tracing: Tracing | None = None
) -> Flask:
    """The gateway as a WSGI application. Raises SettingsError."""
    settings = settings or Settings.from_environ()
    metrics = Metrics()
    client = client or PredictionClient(settings, metrics)
    classifier = Classifier(settings, client, metrics)
    explainer = Explainer(Neighbours(settings.index))

    app = Flask("gateway", static_folder=None)
    app.url_map.strict_slashes = False
    app.extensions["whence"] = client
    errors.install(app)
    requests.install(app, settings, metrics, tracing or from_settings(settings))
    access.install(app, settings)
    headers.install(app, settings)
    app.register_blueprint(Predictions(settings, classifier, explainer).blueprint())
    readiness = Readiness(client)
    app.register_blueprint(health.blueprint(readiness))
    app.register_blueprint(Inference(settings, classifier, client, readiness).blueprint())
    app.register_blueprint(models.blueprint(settings, client))
    app.register_blueprint(docs.blueprint(settings))
    if settings.feedback_database:
        store = app.extensions["feedback"] = open_store(settings.feedback_database)
        app.register_blueprint(feedback.blueprint(settings, store, metrics))
    app.get("/metrics")(metrics.response)
    app.register_blueprint(page)
    return app
