"""One version of a model: the states it goes through, and the count of those who use it.

START ─▶ LOADING ─▶ AVAILABLE ─▶ UNLOADING ─▶ END
            │                                  ▲
            └── failed, with the reason ───────┘   (and back to LOADING while there are tries left)
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.server.engine import Servable
from serving.server.storage import Fingerprint

START = ModelVersionStatus.START
LOADING = ModelVersionStatus.LOADING
AVAILABLE = ModelVersionStatus.AVAILABLE
UNLOADING = ModelVersionStatus.UNLOADING
END = ModelVersionStatus.END


@dataclass(frozen=True)
class Failure:
    """Why a load failed, and what the directory looked like then."""

    text: str
    fingerprint: Fingerprint
    retry_at: float | None  # on time.monotonic's clock; None: no try left


class Version:
    """A version directory and, while it is AVAILABLE or UNLOADING, what was loaded from it.

    Args:
        model: The model's name.
        number: The directory's name.
        path: The directory.
        on_change: Called after each change of state, with the state before it, from any thread.
    """

    def __init__(self, model: str, number: int, path: Path, on_change: "Callable[[Version, int | None], None]") -> None:
        self.model, self.number, self.path = model, number, path
        self.state: int = START
        self.failure: Failure | None = None
        self.tries = 0
        self._servable: Servable | None = None
        self._users = 0
        self._lock = threading.Lock()
        self._unused: Callable[[], None] | None = None
        self._on_change = on_change
        on_change(self, None)

    @property
    def servable(self) -> Servable:
        """What is loaded; ask only while you are a user."""
        if self._servable is None:
            raise RuntimeError(f"version {self.number} of {self.model} is not loaded")
        return self._servable

    def waiting(self) -> None:
        """A load will begin, for the first time or again, as soon as the loader is free."""
        self._unused = None
        self._enter(START)

    def loading(self) -> None:
        """A load begins."""
        self.tries += 1
        self._enter(LOADING)

    def failed(self, failure: Failure) -> None:
        """The load ended badly."""
        self.failure = failure
        self._enter(END)

    def loaded(self, servable: Servable) -> None:
        """The load and its warmup are done: requests may come."""
        self._servable, self.failure, self.tries = servable, None, 0
        self._enter(AVAILABLE)

    def try_acquire(self) -> bool:
        """One more user, if the version is AVAILABLE."""
        with self._lock:
            if self.state != AVAILABLE:
                return False
            self._users += 1
            return True

    def acquire(self) -> None:
        """One more user; only for somebody who is one already."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One user less. The last one of a retired version sets its unloading off."""
        with self._lock:
            self._users -= 1
            unused = self._unused if self._users == 0 else None
        if unused:
            unused()

    def retire(self, unused: Callable[[], None]) -> None:
        """Takes no new users; calls `unused` once, when the last one has gone."""
        with self._lock:
            self.state, previous = UNLOADING, self.state
            self._unused = unused
            idle = self._users == 0
        self._on_change(self, previous)
        if idle:
            unused()

    def unload(self) -> None:
        """Gives the memory back."""
        servable, self._servable = self._servable, None
        if servable is not None:
            servable.close()
        self._enter(END)

    def _enter(self, state: int) -> None:
        with self._lock:
            self.state, previous = state, self.state
        self._on_change(self, previous)
