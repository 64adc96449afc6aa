"""gunicorn's gthread worker: limits on slow clients, problem documents for what is no HTTP, a stop that loses none.

A connection has a thread only from its first byte to the end of the answer. Before and after, the loop looks after it.
"""

import errno
import logging
import resource
import selectors
import socket
import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final

from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import TConn, ThreadWorker

from gateway import errors, lifecycle
from gateway.reads import bodies, heads, rests
from gateway.settings import Settings
from serving import memory

log = logging.getLogger("whence.worker")

STALL_S: Final = 30.0  # how long a client may neither send nor take a byte
REST_S: Final = 5.0  # how long the rest of a body that nobody wants is taken in
STEP_BYTES: Final = 256 * 1024  # of such a body
HURRY_S: Final = 1.0  # how long a head may take when a quarter of the threads wait for heads already
LINGER_S: Final = 2.0  # how long a client may take to close its side of a connection
ROOM: Final = 64  # idle connections that are closed at once to make room
TRIM_EVERY_S: Final = 60.0  # how often memory that lies free goes back to the system: takes some milliseconds
SPARE_FILES: Final = 256  # beside those of connections


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's, without the line for each request that it would put together and then not write: ours is enough."""

    def access(self, *_: Any) -> None:
        """Nothing."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """Stops in two steps: first only /readyz says no and connections are closed politely, then the port closes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = Settings.from_environ()
        self._trim_at = time.monotonic() + TRIM_EVERY_S
        self._parting: deque[Any] = deque()  # connections whose last answer is out, until the client closes them too

    def init_process(self) -> None:
        """Start in the child process."""
        memory.bound()
        _allow_files(self.worker_connections + SPARE_FILES)
        super().init_process()

    def accept(self, listener: Any) -> None:
        """Let a connection in. gunicorn would have a thread wait for its first byte, five seconds long."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                return
            raise
        self.nr_conns += 1
        conn = TConn(self.cfg, sock, address, listener.getsockname())
        conn.timeout = time.monotonic() + self._settings.head_timeout_s
        self.pending_conns.append(conn)
        self.poller.register(sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: Any) -> Any:
        """One request of a connection: its head has to be here in time."""
        crowded = len(heads) >= self._settings.threads // 4
        patience_s = min(HURRY_S, self._settings.head_timeout_s) if crowded else self._settings.head_timeout_s
        heads.begin(conn, time.monotonic() + patience_s, lambda: conn.sock)
        try:
            return super().handle(conn)
        finally:
            heads.end(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The head is here. From now on the application limits the body, and this a client that stalls."""
        heads.end(conn)
        conn.sock.settimeout(STALL_S)
        try:
            return super().handle_request(req, conn)
        except TimeoutError as error:
            raise ConnectionResetError(errno.ECONNRESET, "the client stalled") from error

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what never reached the application; gunicorn would send a page of HTML that repeats what was wrong."""
        request_id = uuid.uuid4().hex
        with suppress(OSError):
            write_nonblock(client, errors.of_no_request(_problem(exc, request_id), request_id))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Take in the rest of a body that was refused before it was read, so that its sender gets to read why.

        gunicorn takes in 64 kB, less than most pictures, then closes a connection that it has just said it would keep.
        Besides, it takes 1 kB at a time, and for each copies all that came with it: seconds for a body of 20 MB.
        """
        until, left = time.monotonic() + REST_S, self._settings.max_body_bytes
        body = conn.parser.mesg.body
        with rests.limited(conn.sock, until), suppress(TimeoutError):
            while left > 0 and not body.failed and (piece := body.read(STEP_BYTES)):
                left -= len(piece)
        whole = conn.parser.finish_body(deadline=until, max_bytes=max(left, 1))
        return bool(keepalive and whole)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """A thread is done with a connection. If it is to be closed, wait for the client's side of it here.

        gunicorn waits too, but in its only loop: each client that keeps its side open would stop all for two seconds.
        """
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
            return
        conn.timeout = time.monotonic() + LINGER_S
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_parting_readable, conn))
        except (OSError, ValueError):  # the client was quicker
            self.nr_conns -= 1
            conn.close()
            return
        self._parting.append(conn)

    def _on_parting_readable(self, conn: Any, client: Any) -> None:
        """Drop what the client still sends; its end is the end of the connection."""
        try:
            over = not socket.socket.recv(client, STEP_BYTES)
        except OSError:
            over = True
        if over:
            self._parting.remove(conn)
            self._end(conn)

    def _end(self, conn: Any) -> None:
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Do gunicorn's own housekeeping, at least once a second, and ours."""
        now = time.monotonic()
        if not self.alive:
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, now + LINGER_S)
        elif self.nr_conns >= self.worker_connections:  # who has waited longest without a word makes room
            for conn in [*islice(self.keepalived_conns, ROOM), *islice(self.pending_conns, ROOM)]:
                conn.timeout = now
        self.murder_keepalived()
        super().murder_pending()
        while self._parting and self._parting[0].timeout <= now:
            self._end(self._parting.popleft())
        for reads in (heads, bodies, rests):
            reads.expire()
        if now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY_S
            memory.trim()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: say so, and go on for drain_s."""
        if lifecycle.draining.is_set():
            return
        lifecycle.draining.set()
        self.max_keepalived = -1  # every answer from now on says Connection: close
        stop = threading.Timer(self._settings.drain_s, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()

    def set_accept_enabled(self, enabled: bool) -> None:
        """When the worker stops: let in whoever has come this far, then close the port.

        gunicorn keeps it open until the last answer is out; who connects meanwhile would wait in the kernel, unheard,
        and be cut off at the end. A closed port says at once: go elsewhere.
        """
        if self.alive or enabled:
            super().set_accept_enabled(enabled)
            return
        for listener in self.sockets:
            seen = -1
            while seen != self.nr_conns:
                seen = self.nr_conns
                self.accept(listener)
        super().set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()


def _allow_files(count: int) -> None:
    """Raise the limit of open files to `count`, as far as may be: accepting one too many would end the worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _problem(error: Exception, request_id: str) -> errors.Problem:
    """Why there is no request, or none that could be handled."""
    fields = {"fields": {"request_id": request_id}}
    if isinstance(error, ParseException | OSError):  # the latter is TLS that is none
        log.info("no HTTP request: %s", type(error).__name__, extra=fields)
        if isinstance(error, LimitRequestLine):
            return errors.AddressTooLong()
        if isinstance(error, LimitRequestHeaders):
            return errors.HeadersTooLarge()
        return errors.BadRequest("this is no HTTP/1.1 request")
    log.error("unexpected %s", type(error).__name__, exc_info=error, extra=fields)
    return errors.InternalError()
