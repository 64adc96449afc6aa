"""Who waits for an answer hears of a client that hangs up, and of no other."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.hangups import HangUps

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="only Linux tells of clients that hang up")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our side of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_client_that_closes_its_side_is_told_of_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    told: list[None] = []
    heard = threading.Event()

    def then() -> None:
        told.append(None)
        heard.set()

    with HangUps().told(ours, then):
        theirs.close()
        assert heard.wait(10)
    assert len(told) == 1


def test_a_client_that_sends_more_has_not_hung_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    heard = threading.Event()
    with HangUps().told(ours, heard.set):
        theirs.send(b"the next request")
        assert not heard.wait(0.2)


def test_what_a_client_did_is_not_told_of_the_next_one_with_its_number(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Between the system's word and the thread that hears it, one connection may end and another begin."""

    class Late:
        """An epoll that tells of the client which had this number before: no real one can be made to be late."""

        said = False

        def poll(self) -> list[tuple[int, int]]:
            if self.said:
                raise InterruptedError
            self.said = True
            return [(ours.fileno(), select.EPOLLRDHUP)]

    ours, _ = pair
    heard = threading.Event()
    waiting = HangUps()
    with waiting.told(ours, heard.set):
        with suppress(InterruptedError):
            waiting._tell(Late())  # type: ignore[arg-type]
        assert not heard.is_set()
