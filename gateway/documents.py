"""A body of JSON as an object, with a bound on what it may unfold to. Knows nothing of HTTP but its problems."""

import json
from typing import Any, Final

from gateway.errors import BadRequest, TooLarge

MEMBERS: Final = 10_000  # far more than pictures, names and parameters need


def load(body: bytes, *, most: int = MEMBERS) -> dict[str, Any]:
    """The JSON object in `body`, of at most `most` values. Raises BadRequest or TooLarge.

    Counted before it is read: Python takes 30 times the bytes of `{},{},{}`, and lets no other thread run meanwhile.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most:
        raise TooLarge(f"the JSON has more than {most:,} values")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(document, dict):
        raise BadRequest("the body is no JSON object")
    return document
