"""Exit 0 when the gateway in this container answers /readyz with 200: the image's HEALTHCHECK.

Standard library only, and run by its path: `-m` would import the whole gateway every ten seconds. It therefore reads
WHENCE_PORT and WHENCE_TLS_* itself, as the only place beside settings.py.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

TIMEOUT_S: Final = 7  # /readyz may look at the model for 5


def main() -> int:
    """The exit status; why it is not ready goes to standard output, which `docker inspect` shows."""
    connection = _connection("127.0.0.1", int(os.environ.get("WHENCE_PORT", "8080")))
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    print(body)
    return 0 if answer.status == 200 else 1


def _connection(host: str, port: int) -> HTTPConnection:
    """To this container's own port. With TLS the certificate is for another name than this, so it is not looked at."""
    certificate, key = os.environ.get("WHENCE_TLS_CERT_FILE"), os.environ.get("WHENCE_TLS_KEY_FILE")
    if not certificate:
        return HTTPConnection(host, port, timeout=TIMEOUT_S)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.load_cert_chain(certificate, key)  # where clients need one: the authority has to know it too
    return HTTPSConnection(host, port, timeout=TIMEOUT_S, context=trusting)


if __name__ == "__main__":
    sys.exit(main())
