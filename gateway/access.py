"""Who may ask, and how often: API keys and rate limits in front of every route that costs the model work."""

from pathlib import Path
from typing import Final

from flask import Flask, Response, request

from gateway import context
from gateway.errors import OverQuota, Unauthorized
from gateway.keys import Keys
from gateway.quota import Quota
from gateway.settings import Settings

GUARDED: Final = ("/v1/", "/v2", "/predict")  # no slash at the end where the routes answer without one too
_OPEN: Final = ("/v2/health/",)


def install(app: Flask, settings: Settings) -> None:
    """Guard the routes of `app`. Raises SettingsError for a file of keys that cannot be read."""
    keys = Keys(Path(settings.api_keys_file)) if settings.api_keys_file else None
    quota = Quota(settings.rate_limit_per_s, settings.rate_limit_burst) if settings.rate_limit_per_s else None

    @app.before_request
    def admit() -> None:
        if not request.path.startswith(GUARDED) or request.path.startswith(_OPEN) or request.method == "OPTIONS":
            return
        now = context.current()
        if keys:
            now.client = _owner(keys)
        if quota:
            allowance = quota.take(now.client or request.remote_addr or "")
            now.headers |= allowance.headers(quota)
            if not allowance.granted:
                raise OverQuota(headers={"Retry-After": str(allowance.reset_s)})

    @app.after_request
    def tell(answer: Response) -> Response:
        answer.headers.update(context.current().headers)
        return answer


def _owner(keys: Keys) -> str:
    """Whose key came with the request. Raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    owner = keys.owner(key) if key else None
    if owner is None:
        raise Unauthorized(headers={"WWW-Authenticate": 'Bearer realm="whence"'})
    return owner
