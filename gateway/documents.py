"""A body of JSON as an object, with a bound on what it may unfold to. Knows nothing of HTTP but its problems."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from gateway.errors import BadRequest, TooLarge
from gateway.limits import Account

MEMBERS: Final = 10_000  # far more than pictures, names and parameters need
MAX_WIDE: Final = 64 * 1024  # bytes of all texts with characters beyond Latin-1, and of all beyond ASCII: names, notes
# Bytes that CPython takes at most beside the text of the body itself: for a value and its place, a list, an object, and
# half of a name or text. Measured; tests/gateway/test_documents.py measures it again.
_COSTS: Final = {b",": 48, b"[": 88, b"{": 100, b'"': 96}
_BEYOND_ASCII: Final = bytes(range(128, 256))
_RUN: Final = re.compile(rb"[\x80-\xff]+")
_ESCAPE: Final = re.compile(rb"\\u(?!00)")
# A text, or what is left of one without an end. Possessive, so that no byte is read twice.
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


@contextmanager
def opened(body: bytes, account: Account, *, most: int = MEMBERS) -> Iterator[dict[str, Any]]:
    """The JSON object in `body`, of at most `most` values. Its memory counts as held for the time of the block.

    Raises BadRequest, TooLarge or Overloaded, all before it is read: Python takes 30 times the bytes of `{},{},{}`, and
    lets no other thread run meanwhile.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most:
        raise TooLarge(f"the JSON has more than {most:,} values")
    with account.holding(len(body) + sum(body.count(sign) * cost for sign, cost in _COSTS.items())):
        try:
            document = json.loads(_narrow(body).decode("ascii"))  # of bytes it would guess the encoding
        except (ValueError, RecursionError) as error:
            raise BadRequest("the body is not JSON") from error
        if not isinstance(document, dict):
            raise BadRequest("the body is no JSON object")
        del body  # it may be large, and is not needed any more
        yield document


def _narrow(body: bytes) -> bytes:
    """The same JSON in ASCII, with few texts of other characters: beside one emoji each letter takes four bytes.

    Raises BadRequest, TooLarge, or ValueError for what is not UTF-8.
    """
    if not body.isascii():
        body = body.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
        if len(body) - len(body.translate(None, _BEYOND_ASCII)) > MAX_WIDE:
            raise TooLarge(f"the JSON has more than {MAX_WIDE:,} bytes that are not ASCII")
        body = _RUN.sub(lambda run: json.dumps(run[0].decode())[1:-1].encode(), body)
    if _ESCAPE.search(body):
        texts = (text.span() for text in _TEXT.finditer(body))
        if sum(end - begin for begin, end in texts if _ESCAPE.search(body, begin, end)) > MAX_WIDE:
            raise TooLarge(f"the JSON's texts that are not ASCII have more than {MAX_WIDE:,} bytes")
    return body
