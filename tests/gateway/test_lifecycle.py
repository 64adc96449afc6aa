"""Starting, stopping and dying, of the gateway and of what is behind it: no accepted request is lost."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from flask import Flask

from tests.fakes import FaultyModelServer, Hang, changed, slow
from tests.gateway.conftest import picture
from tests.gateway.processes import Gateway


def test_sigterm_under_load_loses_nothing(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    """Clients send without a pause, as behind a load balancer: they leave once /readyz says no."""
    gateway = start(drain_s=1.5)
    server.behaviour = slow(0.05)
    statuses: Counter[int] = Counter()
    closed, leave, lock = threading.Event(), threading.Event(), threading.Lock()

    def client() -> None:
        while not leave.is_set():
            answer = gateway.http.post("/v1/predict", content=picture())
            with lock:
                statuses[answer.status_code] += 1
            if answer.headers.get("Connection") == "close":
                closed.set()

    clients = [threading.Thread(target=client) for _ in range(6)]
    for each in clients:
        each.start()
    while statuses.total() < 30:
        time.sleep(0.01)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_for_status("/readyz", 503)
    assert gateway.http.get("/healthz").status_code == 200
    before = statuses.total()
    while statuses.total() < before + 10:  # still answered, while the load balancer learns
        time.sleep(0.01)
    leave.set()
    for each in clients:
        each.join()
    assert gateway.process.wait(30) == 0
    assert set(statuses) == {200}
    assert closed.is_set()  # kept-alive connections are closed politely


def test_a_second_sigterm_changes_nothing(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    gateway = start(drain_s=0.5)
    hang = Hang()
    server.script(hang)
    answers: list[int] = []
    waiting = threading.Thread(
        target=lambda: answers.append(gateway.http.post("/v1/predict", content=picture()).status_code)
    )
    waiting.start()
    assert hang.waiting.acquire(timeout=10)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.6)
    hang.let_go.set()
    waiting.join()
    assert gateway.process.wait(30) == 0
    assert answers == [200]


def test_the_gateway_starts_before_its_model_server(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    server.kill()
    gateway = start()
    gateway.wait_for_status("/readyz", 503)
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 503
    server.start()
    gateway.wait_for_status("/readyz", 200)
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 200


def test_the_gateway_survives_the_death_of_its_model_server(
    start: Callable[..., Gateway], server: FaultyModelServer
) -> None:
    gateway = start()
    gateway.http.post("/v1/predict", content=picture()).raise_for_status()
    worker = gateway.workers()
    server.kill()
    for _ in range(5):
        answer = gateway.http.post("/v1/predict", content=picture())
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    server.start()
    gateway.wait_for_status("/readyz", 200)
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 200
    assert gateway.workers() == worker


def test_a_worker_that_dies_is_replaced(start: Callable[..., Gateway]) -> None:
    gateway = start()
    (victim,) = gateway.workers()
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 20
    while victim in gateway.workers() or not gateway.workers():
        assert time.monotonic() < end
        time.sleep(0.02)
    gateway.wait_for_status("/readyz", 200)
    assert httpx.post(f"{gateway.url}/v1/predict", content=picture()).status_code == 200


@contextmanager
def tcp(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of raw connections; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()
        connections: list[socket.socket] = []

        def run() -> None:
            while not stop.is_set():
                try:
                    connections.append(listener.accept()[0])
                except TimeoutError:
                    continue
                threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

        acceptor = threading.Thread(target=run)
        acceptor.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            acceptor.join()
            for each in connections:
                each.close()


def status_in_time(app: Flask) -> int:
    start = time.monotonic()
    status = app.test_client().post("/v1/predict", data=picture(), headers={"X-Request-Timeout": "1"}).status_code
    assert time.monotonic() - start < 6
    return status


def test_a_server_that_accepts_and_says_nothing_is_answered_in_time(make_app: Callable[..., Flask]) -> None:
    with tcp(lambda connection: None) as address:
        assert status_in_time(make_app(backend=address)) in (503, 504)


def test_a_server_that_speaks_no_grpc_is_answered_in_time(make_app: Callable[..., Flask]) -> None:
    def http1(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

    with tcp(http1) as address:
        assert status_in_time(make_app(backend=address)) in (502, 503, 504)


def test_a_server_that_drips_is_answered_in_time(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    """Everything arrives, but the answers come back byte by byte."""

    def drip(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as behind:

            def forward() -> None:
                try:
                    while data := connection.recv(65536):
                        behind.sendall(data)
                except OSError:
                    return

            threading.Thread(target=forward, daemon=True).start()
            try:
                connection.sendall(behind.recv(65536))  # the handshake
                while byte := behind.recv(1):
                    connection.sendall(byte)
                    time.sleep(0.1)
            except OSError:
                return

    with tcp(drip) as address:
        assert status_in_time(make_app(backend=address)) in (503, 504)


@pytest.mark.parametrize("size", [5_000_000])
def test_a_reply_too_large_to_be_true_is_refused(
    make_app: Callable[..., Flask], server: FaultyModelServer, size: int
) -> None:
    server.behaviour = changed(lambda response: response.outputs["labels"].string_val.append(b"x" * size))
    assert status_in_time(make_app()) in (502, 503)
