"""Exit 0 when the gateway in this container answers /readyz with 200: the image's HEALTHCHECK.

Standard library only, and run by its path: `-m` would import the whole gateway every ten seconds. It therefore reads
WHENCE_PORT itself, as the only place beside settings.py.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

TIMEOUT_S: Final = 7  # /readyz may ask the model for a prediction, and gives that 5


def main() -> int:
    """The exit status; why it is not ready goes to standard output, which `docker inspect` shows."""
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("WHENCE_PORT", "8080")), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    print(body)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
