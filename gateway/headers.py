"""Headers of every answer: what browsers may do with it, and which other sites may ask (none, unless told)."""

from typing import Final

from flask import Flask, Response, request

from gateway.access import GUARDED
from gateway.settings import Settings

_ALWAYS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_API: Final = {"Cache-Control": "no-store"}
_HTML: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, Inference-Header-Content-Length, traceparent, X-API-Key, "
        "X-Request-ID, X-Request-Timeout"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = "Inference-Header-Content-Length, Retry-After, RateLimit, RateLimit-Policy, X-Request-ID"


def install(app: Flask, settings: Settings) -> None:
    """Add the headers to all answers of `app`."""
    origins = frozenset(settings.cors_origins.split(",")) - {""}

    @app.after_request
    def add(answer: Response) -> Response:
        api = request.path.startswith(GUARDED)
        wanted = _ALWAYS | (_HTML if answer.mimetype == "text/html" else {}) | (_API if api else {})
        for name, value in wanted.items():
            answer.headers.setdefault(name, value)
        if api and origins:
            _allow_origin(answer, origins)
        return answer


def _allow_origin(answer: Response, origins: frozenset[str]) -> None:
    """Cross-origin resource sharing, as the Fetch standard has it."""
    answer.vary.add("Origin")
    origin = request.headers.get("Origin")
    if origin is None or not {origin, "*"} & origins:
        return
    answer.headers["Access-Control-Allow-Origin"] = origin
    answer.headers["Access-Control-Expose-Headers"] = _EXPOSED
    if request.method == "OPTIONS":
        answer.headers.update(_PREFLIGHT)
