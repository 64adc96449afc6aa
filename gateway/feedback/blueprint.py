"""Blueprint: `POST /v1/feedback`."""

import json
from typing import Final

from flask import Blueprint, Response, request

from gateway import context, documents
from gateway.errors import OverQuota, UnsupportedMedia
from gateway.feedback.entries import parse, parse_key
from gateway.feedback.stores import Store
from gateway.limits import ByteBudget
from gateway.metrics import Metrics
from gateway.quota import Quota
from gateway.settings import Settings
from gateway.uploads import read_body

MAX_BYTES: Final = 16 * 1024  # of a body: a note of 2,000 characters, each escaped, and some air


def blueprint(settings: Settings, store: Store, metrics: Metrics) -> Blueprint:
    """The route."""
    routes = Blueprint("feedback", __name__)
    quota = Quota(settings.feedback_per_minute / 60, settings.feedback_per_minute)
    bytes_held = ByteBudget(settings.max_held_bytes)

    @routes.post("/v1/feedback")
    def say() -> Response:
        """Keep one judgement; it is on the disk when this answers."""
        now = context.current()
        allowance = quota.take(now.client or request.remote_addr or "")
        if not allowance.granted:
            raise OverQuota(headers={"Retry-After": str(allowance.reset_s)})
        if request.mimetype != "application/json":
            raise UnsupportedMedia("feedback is application/json")
        with bytes_held.account() as account:
            body = read_body(request, settings, now, account, limit=MAX_BYTES)
            with documents.opened(body, account) as document:
                entry = parse(document)
        key = parse_key(request.headers.get("Idempotency-Key"))
        kept = store.add(entry, key, now.deadline)
        metrics.feedback.labels("repeated" if kept.repeated else "kept").inc()
        document = {"request_id": now.request_id, "received_at": kept.received_at, "repeated": kept.repeated}
        return Response(json.dumps(document), status=200 if kept.repeated else 201, content_type="application/json")

    return routes
