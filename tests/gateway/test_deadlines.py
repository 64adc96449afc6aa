"""One budget for each request: reading, waiting and the model all come out of it; who hangs up frees the place."""

import socket
import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.fakes import FaultyModelServer, Hang, slow
from tests.gateway.conftest import picture
from tests.gateway.processes import Gateway


def post(http: FlaskClient, seconds: str | None = None) -> tuple[int, str]:
    headers = {"X-Request-Timeout": seconds} if seconds else {}
    answer = http.post("/v1/predict", data=picture(), headers=headers)
    return answer.status_code, answer.get_json().get("type", "")


@pytest.mark.parametrize(("asked", "most"), [(None, 10), ("3", 3), ("1000", 30), ("1e300", 30)])
def test_the_model_server_gets_what_is_left(
    http: FlaskClient, server: FaultyModelServer, asked: str | None, most: float
) -> None:
    assert post(http, asked)[0] == 200
    assert most - 2 < server.calls[0].time_left_s <= most


def test_a_slow_model_is_answered_504_in_time(http: FlaskClient, server: FaultyModelServer) -> None:
    server.behaviour = hang = Hang()
    start = time.monotonic()
    assert post(http, "0.4") == (504, "/problems/timeout")
    assert time.monotonic() - start < 5
    assert hang.given_up.wait(5)
    hang.let_go.set()


def test_an_expired_request_is_not_sent_on(http: FlaskClient, server: FaultyModelServer) -> None:
    assert post(http, "0.000001") == (504, "/problems/timeout")
    assert not server.calls


def send_slowly(gateway: Gateway, data: bytes, pause_s: float, headers: str = "") -> bytes:
    """Send a request whose body comes byte by byte; what comes back."""
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as client:
        client.sendall(head)
        client.settimeout(pause_s)
        for at in range(len(data)):
            try:
                client.sendall(data[at : at + 1])
                head = client.recv(2000)
                client.settimeout(30)
                return head + client.recv(2000)
            except TimeoutError:
                continue
            except OSError:
                return b""
        client.settimeout(30)
        return client.recv(1000)


def test_time_to_read_the_body_is_taken_off(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    gateway = start()
    data = picture(format="PNG", size=(4, 4))
    assert send_slowly(gateway, data, 1.5 / len(data), "X-Request-Timeout: 9\r\n").startswith(b"HTTP/1.1 200")
    assert server.calls[0].time_left_s < 7.6


@pytest.mark.parametrize("pause_s", [0.05, 60], ids=["drips", "stalls"])
def test_a_body_that_takes_too_long_is_answered_408(
    start: Callable[..., Gateway], server: FaultyModelServer, pause_s: float
) -> None:
    gateway = start()
    answer = send_slowly(gateway, picture(), pause_s, "X-Request-Timeout: 1\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/slow-client" in answer
    assert not server.calls


def test_a_head_that_takes_too_long_is_cut_off(start: Callable[..., Gateway]) -> None:
    gateway = start(head_timeout_s=0.5)
    clients = [socket.create_connection(("127.0.0.1", gateway.port), timeout=30) for _ in range(20)]
    begun = time.monotonic()
    while clients:
        assert time.monotonic() - begun < 20
        for client in list(clients):
            try:
                client.sendall(b"X")
            except OSError:
                clients.remove(client)
                client.close()
        assert gateway.http.get("/healthz").status_code == 200
        time.sleep(0.1)


def test_a_client_that_hangs_up_frees_its_place(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    gateway = start(max_in_flight=1, max_waiting=0)
    hang = Hang()
    server.script(hang)
    data = picture()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(head + data)
        assert hang.waiting.acquire(timeout=10)
        assert gateway.http.post("/v1/predict", content=data).status_code == 503
    assert hang.given_up.wait(5)
    hang.let_go.set()
    end = time.monotonic() + 5
    while gateway.http.post("/v1/predict", content=data).status_code != 200:
        assert time.monotonic() < end
    assert gateway.metric("whence_rejected_total", reason="client-gone") == 1


def test_a_client_that_waits_is_not_taken_for_gone(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    server.behaviour = slow(1.0)
    assert start().http.post("/v1/predict", content=picture()).status_code == 200
