"""Clients that hang up while they wait for an answer. The system says so to one thread, so waiting costs nothing."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class HangUps:
    """The clients that wait. Linux only; elsewhere nobody is told, and the answer is made for nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Callable[[], object]] = {}  # by file descriptor: whom to tell
        self._epoll: select.epoll | None = None  # made by the first who waits: a fork would not take its thread along

    @contextmanager
    def told(self, sock: socket.socket | None, then: Callable[[], object]) -> Iterator[None]:
        """Call `then`, once and from another thread, if the client closes its side of `sock` within the block."""
        if sock is None or not hasattr(select, "epoll"):  # no real connection, as in some tests
            yield
            return
        number = sock.fileno()
        with self._lock:
            self._waiting[number] = then
            epoll = self._epoll = self._epoll or self._listen()
        try:
            try:
                epoll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)
            except (OSError, ValueError):  # closed already
                then()
            yield
        finally:
            with self._lock:
                self._waiting.pop(number, None)
            with suppress(OSError, ValueError):
                epoll.unregister(number)

    def _listen(self) -> "select.epoll":
        epoll = select.epoll()
        threading.Thread(target=self._tell, args=(epoll,), name="hang-ups", daemon=True).start()
        return epoll

    def _tell(self, epoll: "select.epoll") -> None:
        while True:
            for number, _ in epoll.poll():
                with self._lock:  # since the poll the number may have come to belong to another client, who waits
                    then = self._waiting.pop(number, None) if _hung_up(number) else None
                if then:
                    then()


def _hung_up(number: int) -> bool:
    """Whether the other side of the open file `number` is closed now."""
    look = select.poll()
    look.register(number, select.POLLRDHUP)
    return bool(look.poll(0))


hang_ups = HangUps()
