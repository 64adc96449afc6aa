"""gunicorn's gthread worker, with a stop that loses no request."""

import threading
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from gateway import lifecycle
from gateway.settings import Settings


class Worker(ThreadWorker):  # type: ignore[misc]
    """Stops in two steps: first only /readyz says no and connections are closed politely, then the port closes."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: say so, and go on for drain_s."""
        if lifecycle.draining.is_set():
            return
        lifecycle.draining.set()
        self.max_keepalived = -1  # every answer from now on says Connection: close
        stop = threading.Timer(Settings.from_environ().drain_s, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()
