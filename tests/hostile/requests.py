"""Bytes that are hardly HTTP, and what may be answered: a status, or 0 for a connection closed without one."""

import socket
from contextlib import suppress

POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
ODD: dict[str, tuple[bytes, set[int]]] = {
    "no HTTP": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 200, {0, 400}),
    "empty": (b"", {0}),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", {400}),
    "length of text": (POST + b"Content-Length: abc\r\n\r\n", {400}),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", {413}),
    "bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
    "huge chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", {400}),
    "unknown coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400, 415, 501}),
    "header injection": (POST + b"X-Request-ID: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", {400}),
    "NUL in a header": (POST + b"X-Request-ID: a\0b\r\nContent-Length: 0\r\n\r\n", {400}),
    "space before colon": (POST + b"Content-Length : 0\r\n\r\n", {400}),
    "folded header": (POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", {400}),
    "long header": (POST + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", {0, 431}),
    "many headers": (POST + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n", {0, 431}),
    "long line": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {0, 414}),
    "path with CRLF": (b"GET /a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "path traversal": (b"GET /page/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "encoded traversal": (b"GET /page/%2e%2e/%2e%2e/settings.py HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "NUL in a path": (b"GET /page/%00 HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "not UTF-8": (b"GET /%ff%fe?%ff HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "other method": (b"BREW /v1/predict HTTP/1.1\r\nHost: x\r\n\r\n", {405}),
    "other version": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", {400}),
    "whole address": (b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", {200, 400}),
    "expectation": (POST + b"Expect: miracles\r\nContent-Length: 0\r\n\r\n", {417, 400}),
}


def answer_to(port: int, data: bytes) -> bytes:
    """Send bytes as they are to a port of this machine; all that comes back, which may be nothing."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client, suppress(OSError):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            answer += piece
    return answer
