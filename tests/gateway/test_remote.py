"""The Python client against a service that answers as the test says."""

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from flask import Flask, Response, jsonify, request

from gateway.remote import Failed, Refused, Unavailable, Whence
from tests.listening import listening

ANSWER = {
    "request_id": "a1",
    "model": {"name": "culture", "version": 7},
    "predictions": [{"culture": "Greek", "probability": 0.8, "top": [{"culture": "Greek", "probability": 0.8}]}],
}


class Service:
    """Gives the replies of its script, then good answers; keeps when it was asked."""

    def __init__(self) -> None:
        self.script: deque[tuple[object, int, dict[str, str]]] = deque()
        self.bodies: list[bytes] = []
        self.times: list[float] = []
        self.budgets: list[str | None] = []
        self.app = Flask("scripted")
        self.app.post("/v1/predict")(self.reply)
        self.url = ""

    def reply(self) -> tuple[Response, int, dict[str, str]]:
        self.bodies.append(request.get_data())
        self.times.append(time.monotonic())
        self.budgets.append(request.headers.get("X-Request-Timeout"))
        document, status, headers = self.script.popleft() if self.script else (ANSWER, 200, {})
        return jsonify(document), status, headers

    def fails(self, status: int, times: int = 1, retry_after: str = "0", **problem: str) -> None:
        self.script.extend([({"title": "No", **problem}, status, {"Retry-After": retry_after})] * times)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    with listening(service.app) as service.url:
        yield service


def test_classify_gives_the_answer(service: Service) -> None:
    answer = Whence(service.url).classify(b"picture")
    assert (answer.culture, answer.probability, answer.decision) == ("Greek", 0.8, "accepted")


def test_classify_sends_the_bytes_as_they_are(service: Service) -> None:
    Whence(service.url).classify(bytes(range(256)))
    assert service.bodies == [bytes(range(256))]


def test_a_picture_may_take_as_long_on_the_way_as_its_sender_waits(service: Service) -> None:
    Whence(service.url, timeout_s=45).classify(b"x")
    assert service.budgets == ["45"]


@pytest.mark.parametrize("url", ["museum.example", "ftp://museum.example", "http://museum..example", "http://a/\u00fc"])
def test_an_address_that_is_none_is_told_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Whence(url)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_problem_of_the_picture_is_refused_at_once(service: Service, status: int) -> None:
    service.fails(status, detail="broken or truncated JPEG picture", request_id="r7")
    with pytest.raises(Refused, match="No: broken or truncated") as caught:
        Whence(service.url).classify(b"x")
    assert (caught.value.status, caught.value.request_id, len(service.times)) == (status, "r7", 1)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_service_is_asked_again(service: Service, status: int) -> None:
    service.fails(status, times=4)
    assert Whence(service.url).classify(b"x").culture == "Greek"
    assert len(service.times) == 5


def test_retry_after_is_honoured(service: Service) -> None:
    service.fails(503, retry_after="1")
    Whence(service.url).classify(b"x")
    assert service.times[1] - service.times[0] >= 1


def test_retry_after_may_be_a_date(service: Service) -> None:
    service.fails(503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))
    Whence(service.url).classify(b"x")
    assert service.times[1] - service.times[0] >= 0.9  # the date has whole seconds


@pytest.mark.parametrize("value", ["soon", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "-1", ""])
def test_a_retry_after_that_is_none_is_passed_over(service: Service, value: str) -> None:
    service.fails(503, retry_after=value)
    assert Whence(service.url).classify(b"x").culture == "Greek"


def test_threads_pause_together(service: Service) -> None:
    service.fails(503, retry_after="1")
    whence = Whence(service.url)
    paused = threading.Thread(target=whence.classify, args=(b"x",))
    paused.start()
    while not service.times:
        time.sleep(0.005)
    time.sleep(0.05)  # the reply has to arrive
    whence.classify(b"y")
    paused.join()
    assert min(service.times[1:]) - service.times[0] >= 1


def test_patience_ends(service: Service) -> None:
    service.fails(503, times=9, retry_after="5", detail="full")
    with pytest.raises(Unavailable, match="full"):
        Whence(service.url, patience_s=1).classify(b"x")
    assert len(service.times) == 1


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_fault_is_tried_three_times(service: Service, status: int) -> None:
    service.fails(status, times=9)
    with pytest.raises(Failed):
        Whence(service.url).classify(b"x")
    assert len(service.times) == 3


def test_a_fault_is_tried_three_times_after_a_busy_time_too(service: Service) -> None:
    service.fails(503, times=3)
    service.fails(500, times=9)
    with pytest.raises(Failed):
        Whence(service.url).classify(b"x")
    assert len(service.times) == 6


@pytest.mark.parametrize("status", [301, 401, 404, 405])
def test_another_address_is_not_the_fault_of_the_picture(service: Service, status: int) -> None:
    service.fails(status)
    with pytest.raises(Unavailable):
        Whence(service.url).classify(b"x")
    assert len(service.times) == 1


@pytest.mark.parametrize("document", [[], {}, {"predictions": []}, ANSWER | {"model": None}])
def test_an_answer_of_something_else_is_unavailable(service: Service, document: object) -> None:
    service.script.append((document, 200, {}))
    with pytest.raises(Unavailable, match="is the address right"):
        Whence(service.url).classify(b"x")


def test_a_service_never_reached_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="cannot be reached"):
        Whence(f"http://127.0.0.1:{port}").classify(b"x")


def test_a_service_that_went_away_is_waited_for() -> None:
    service = Service()
    with listening(service.app) as url:
        whence = Whence(url)
        whence.classify(b"x")
    asking = threading.Thread(target=whence.classify, args=(b"y",))
    asking.start()
    asking.join(0.3)
    assert asking.is_alive()
    with listening(service.app, int(url.rpartition(":")[2])):
        asking.join(20)
    assert service.bodies == [b"x", b"y"]


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", ""])
def test_a_wrong_address_is_told_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        Whence(url)


def test_a_connection_closed_between_two_pictures_is_opened_again() -> None:
    body = (
        b'{"request_id":"a","model":{"name":"m","version":1},"predictions":[{"culture":"c","probability":1,"top":[]}]}'
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n".encode()

    def serve(listener: socket.socket) -> None:
        for _ in range(2):  # promises to keep the connection, and does not
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with Whence(f"http://127.0.0.1:{listener.getsockname()[1]}", patience_s=0) as whence:
            answers = [whence.classify(b"x").culture for _ in range(2)]
        server.join()
    assert answers == ["c", "c"]


def test_why_it_waits_is_told(service: Service) -> None:
    service.fails(503, detail="the gateway is full")
    told: list[str] = []
    Whence(service.url, on_pause=lambda error: told.append(str(error))).classify(b"x")
    assert told == ["No: the gateway is full"]
