"""Clients that hold connections and give nothing for it: they cost the others no thread and no time."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.gateway.conftest import picture
from tests.gateway.processes import Gateway

PATIENCE_S = 10.0  # of a good client; a gateway that waits for the bad ones takes longer
CLOSE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[socket.socket]]]:
    """Many connections that say the same, open until the end of the test."""
    with ExitStack() as held:

        def connect(gateway: Gateway, count: int, words: bytes) -> list[socket.socket]:
            clients = []
            for _ in range(count):
                client = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20))
                client.sendall(words)
                clients.append(client)
            return clients

        yield connect


def answered(gateway: Gateway) -> bool:
    """Whether a new client gets the answers it is there for."""
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as good:
        return good.get("/healthz").status_code == good.post("/v1/predict", content=picture()).status_code == 200


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_clients_that_send_no_head_hold_no_thread(
    start: Callable[..., Gateway], crowd: Callable[..., list[socket.socket]], words: bytes
) -> None:
    gateway = start(threads=16, max_in_flight=16, head_timeout_s=30)
    crowd(gateway, 48, words)
    assert answered(gateway)


def test_clients_that_send_no_body_give_way_to_others(
    start: Callable[..., Gateway], crowd: Callable[..., list[socket.socket]]
) -> None:
    gateway = start(max_in_flight=4, threads=16)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nX-Request-Timeout: 30\r\n\r\n"
    slow = crowd(gateway, 4, head)
    begin = time.monotonic()
    while gateway.metric("whence_inflight_requests") < len(slow):
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.05)
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 503
    while gateway.http.post("/v1/predict", content=picture()).status_code != 200:
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.1)
    for client in slow:
        assert client.recv(65536).startswith(b"HTTP/1.1 408")


def test_clients_that_leave_their_side_open_stop_nobody(
    start: Callable[..., Gateway], crowd: Callable[..., list[socket.socket]]
) -> None:
    gateway = start()
    clients = crowd(gateway, 20, CLOSE)
    for client in clients:
        answer = b""
        while piece := client.recv(65536):  # until the gateway has closed its own side
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200")
    assert answered(gateway)


def test_connections_that_are_parted_from_are_given_back(
    start: Callable[..., Gateway], crowd: Callable[..., list[socket.socket]]
) -> None:
    gateway = start()
    before = gateway.metric("process_open_fds")
    for client in crowd(gateway, 20, CLOSE):
        while client.recv(65536):
            pass
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:  # the gateway takes what comes for a while, then closes this direction too
                client.sendall(b"a")
    assert gateway.metric("process_open_fds") <= before + 5
    assert gateway.stop() == 0


def test_idle_connections_make_room_for_new_ones(
    start: Callable[..., Gateway], crowd: Callable[..., list[socket.socket]]
) -> None:
    count = 2100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count), hard))
    gateway = start(threads=8, max_in_flight=8, head_timeout_s=60)
    crowd(gateway, count, b"")  # worker_connections are 2,008
    assert answered(gateway)
