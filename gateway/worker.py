"""gunicorn's gthread worker: limits on slow clients, problem documents for what is no HTTP, a stop that loses none."""

import errno
import logging
import threading
import time
from contextlib import suppress
from typing import Any, Final

from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from gateway import errors, lifecycle, memory
from gateway.reads import reads
from gateway.settings import Settings

log = logging.getLogger("whence.worker")

STALL_S: Final = 30.0  # how long a client may neither send nor take a byte
REST_S: Final = 5.0  # how long the rest of a body that nobody wants is taken in
STEP_BYTES: Final = 256 * 1024  # of such a body


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's, without the line for each request that it would put together and then not write: ours is enough."""

    def access(self, *_: Any) -> None:
        """Nothing."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """Stops in two steps: first only /readyz says no and connections are closed politely, then the port closes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = Settings.from_environ()

    def init_process(self) -> None:
        """Start in the child process."""
        memory.give_back()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """One request of a connection: its head has to be here in time."""
        reads.begin(conn, time.monotonic() + self._settings.head_timeout_s, lambda: conn.sock)
        try:
            return super().handle(conn)
        finally:
            reads.end(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The head is here. From now on the application limits the body, and this a client that stalls."""
        reads.end(conn)
        conn.sock.settimeout(STALL_S)
        try:
            return super().handle_request(req, conn)
        except TimeoutError as error:
            raise ConnectionResetError(errno.ECONNRESET, "the client stalled") from error

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what never reached the application; gunicorn would send a page of HTML that repeats what was wrong."""
        with suppress(OSError):
            write_nonblock(client, errors.of_no_request(_problem(exc)))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Take in the rest of a body that was refused before it was read, so that its sender gets to read why.

        gunicorn takes in 64 kB, less than most pictures, then closes a connection that it has just said it would keep.
        Besides, it takes 1 kB at a time, and for each copies all that came with it: seconds for a body of 20 MB.
        """
        until, left = time.monotonic() + REST_S, self._settings.max_body_bytes
        body = conn.parser.mesg.body
        with reads.limited(conn.sock, until), suppress(TimeoutError):
            while left > 0 and not body.failed and (piece := body.read(STEP_BYTES)):
                left -= len(piece)
        whole = conn.parser.finish_body(deadline=until, max_bytes=max(left, 1))
        return bool(keepalive and whole)

    def murder_pending(self) -> None:
        """Do gunicorn's own housekeeping, about once a second, and ours."""
        super().murder_pending()
        reads.expire()

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


def _problem(error: Exception) -> errors.Problem:
    """Why there is no request, or none that could be handled."""
    if isinstance(error, LimitRequestLine):
        return errors.AddressTooLong()
    if isinstance(error, LimitRequestHeaders):
        return errors.HeadersTooLarge()
    if isinstance(error, ParseException | OSError):  # the latter is TLS that is none
        log.info("no HTTP request: %s", type(error).__name__)
        return errors.BadRequest("this is no HTTP/1.1 request")
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return errors.InternalError()
