"""Many callers of one HTTP address: in a closed loop (each waits for its answer) or an open one (a fixed rate).

One thread and no library between: a request costs the load generator well under a millisecond of the CPU that it
shares with what is measured, and every outcome says how much. What is sent is made before; each reply is read whole.
"""

import asyncio
import http.client
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 20.0
MOST_AT_ONCE = 512  # open loop: requests beyond that are not sent, and counted as such
WARM_UP_S = 2.0  # closed loop: answers in this time are not counted
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Body:
    """One request's body."""

    content: bytes
    content_type: str


@dataclass
class Outcome:
    """What came back within the time that counts."""

    seconds: float
    answers: Counter[str] = field(default_factory=Counter)  # by status, or by the name of the error
    good_s: list[float] = field(default_factory=list)  # durations of the answers 200
    refused_s: list[float] = field(default_factory=list)  # durations of the answers 503
    own_cpu_s: float = 0.0  # of this process, also for answers that do not count
    asked: int = 0  # also those that do not count

    def add(self, answer: str, duration_s: float) -> None:
        self.answers[answer] += 1
        if answer == "200":
            self.good_s.append(duration_s)
        elif answer == "503":
            self.refused_s.append(duration_s)

    def summary(self) -> dict[str, Any]:
        """Rates per second, durations in milliseconds."""
        return {
            "rps": round(self.answers["200"] / self.seconds, 2),
            "p50_ms": _percentile(self.good_s, 50),
            "p99_ms": _percentile(self.good_s, 99),
            "refused_p50_ms": _percentile(self.refused_s, 50),
            "refused_p99_ms": _percentile(self.refused_s, 99),
            "generator_cpu_ms": round(1000 * self.own_cpu_s / max(1, self.asked), 2),
            "answers": dict(self.answers),
        }


class Caller:
    """One connection, opened again after an error. For who asks one thing after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path or "/"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def ask(self, body: Body) -> str:
        """The status as text, or the name of the error."""
        try:
            self._connection.request("POST", self._path, body.content, {"Content-Type": body.content_type})
            reply = self._connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return type(error).__name__
        return str(reply.status)

    def close(self) -> None:
        self._connection.close()


class _Connection(asyncio.Protocol):
    """One connection on which one request after the other is asked; made anew by its user once it is `closed`."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._answer: asyncio.Future[str]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> "asyncio.Future[str]":
        """The status as text, or the name of the error."""
        self._answer = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(_END_OF_HEAD)
        if head < 0:
            return
        names = bytes(self._received[:head]).lower()
        whole = len(self._received) - head - len(_END_OF_HEAD)
        if b"\r\ntransfer-encoding: chunked" in names:
            complete = self._received.endswith(b"0\r\n\r\n")
        else:
            complete = whole >= int(names.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        if not complete:
            return
        if b"\r\nconnection: close" in names:
            self.close()
        self._end(names[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._end(type(error).__name__ if error else "RemoteDisconnected")

    def close(self) -> None:
        self.closed = True
        self._transport.abort()

    def _end(self, answer: str) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


class _Address:
    """Where to ask, and the bytes of each request."""

    def __init__(self, url: str, bodies: Sequence[Body]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.requests = [
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {body.content_type}\r\n"
            f"Content-Length: {len(body.content)}\r\n\r\n".encode()
            + body.content
            for body in bodies
        ]

    async def ask(self, connection: _Connection | None, number: int) -> tuple[str, _Connection | None]:
        """The answer to request `number`, and the connection for the next one."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if connection is None or connection.closed:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(_Connection, self._host, self._port)
                return await connection.ask(self.requests[number % len(self.requests)]), connection
        except OSError as error:  # TimeoutError is one
            if connection:
                connection.close()
            return type(error).__name__, None


def closed_loop(
    url: str, bodies: Sequence[Body], *, callers: int, seconds: float, warm_up: float = WARM_UP_S
) -> Outcome:
    """`callers`, each sending its next request when the last one is answered.

    The time that counts goes from an answer to an answer: who answers by sixteens would else be seen to answer one
    sixteen more or less, by chance, which in a few seconds is a tenth.
    """
    outcome, address = Outcome(seconds), _Address(url, bodies)
    answers: list[tuple[float, str, float]] = []  # when, what, how long it took

    async def call(number: int, begin: float) -> None:
        connection: _Connection | None = None
        while (start := time.monotonic()) < begin + seconds:
            answer, connection = await address.ask(connection, number)
            now, number = time.monotonic(), number + 1
            answers.append((now, answer, now - start))
        if connection:
            connection.close()

    async def run() -> None:
        begin = time.monotonic() + warm_up
        await asyncio.gather(*(call(number, begin) for number in range(callers)))
        first = min((when for when, *_ in answers if when >= begin), default=begin)
        last = min((when for when, *_ in answers if when >= begin + seconds), default=begin + seconds)
        for when, answer, duration_s in answers:
            if first <= when < last:
                outcome.add(answer, duration_s)
        outcome.seconds, outcome.asked = last - first, len(answers)

    return _timed(run, outcome)


def open_loop(url: str, bodies: Sequence[Body], *, rate: float, seconds: float) -> Outcome:
    """`rate` requests per second whether or not answers come. A duration starts when the request was due."""
    outcome, address = Outcome(seconds), _Address(url, bodies)
    idle: deque[_Connection] = deque()

    async def call(number: int, due: float) -> None:
        answer, connection = await address.ask(idle.pop() if idle else None, number)
        outcome.add(answer, time.monotonic() - due)
        if connection and not connection.closed:
            idle.append(connection)

    async def run() -> None:
        begin, calls = time.monotonic(), set[asyncio.Task[None]]()
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(due - time.monotonic())
            outcome.asked += 1
            if len(calls) >= MOST_AT_ONCE:
                outcome.add("not sent", 0.0)
                continue
            call_ = asyncio.create_task(call(number, due))
            calls.add(call_)
            call_.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
        # Answers that came after the last request was sent count, so does the time they took.
        outcome.seconds = max(seconds, time.monotonic() - begin)
        for connection in idle:
            connection.close()

    return _timed(run, outcome)


def _timed(run: Callable[[], Awaitable[None]], outcome: Outcome) -> Outcome:
    async def main() -> None:
        await run()

    before = time.process_time()
    asyncio.run(main())
    outcome.own_cpu_s = time.process_time() - before
    return outcome


def _percentile(durations_s: Sequence[float], percent: int) -> float | None:
    if not durations_s:
        return None
    cuts = quantiles(durations_s, n=100, method="inclusive") if len(durations_s) > 1 else [durations_s[0]] * 99
    return round(1000 * cuts[percent - 1], 1)
