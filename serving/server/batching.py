"""Many callers, few runs: requests wait in one line per kind, and whatever waits when a thread is free runs together.

    submit ──▶ line of (version, signature, shapes) ──▶ runner thread: stack, pad, run, split ──▶ each caller's future

A runner takes the kind whose oldest request has waited longest, so nobody is overtaken by a busier model. A cancelled
future leaves the line at once; one whose deadline has passed is answered without being run.

Where the servable has two widths (widths.py) a run is wide, on all cores and by itself, while few requests wait; once
there is one for each narrow run they run side by side.

Without batching each request is a run of its own, and none waits while a runner is free: the first has all cores, those
that come meanwhile run narrow beside it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import numpy as np

from serving.server.config import Batching
from serving.server.engine import Arrays, Servable, Signature
from serving.server.errors import DeadlineExceeded, Internal, InvalidArgument, ServingError, Unavailable
from serving.server.logs import event
from serving.server.metrics import Metrics


class Lease(Protocol):
    """A version that stays loaded until `release`."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def number(self) -> int:
        """The version's number."""

    @property
    def servable(self) -> Servable:
        """What is loaded."""

    def acquire(self) -> None:
        """One more user. Only somebody who already is one may call this."""

    def release(self) -> None:
        """One user less."""


@dataclass(eq=False)
class Task:
    """One request, or one piece of it, that is run as a whole."""

    version: Lease
    signature: Signature
    inputs: Arrays
    rows: int | None  # None: the signature has no batch dimension, or the caller left an input to its default
    alone: bool  # shares its run with nobody
    deadline: float | None  # on time.monotonic's clock
    enqueued: float = field(default_factory=time.monotonic)
    future: "Future[Arrays]" = field(default_factory=Future)

    @property
    def weight(self) -> int:
        """Room it takes in the line, in rows."""
        return 1 if self.rows is None else self.rows

    @cached_property
    def kind(self) -> Hashable:
        """Equal for tasks that wait in one line; unless they are alone they may share a run."""
        if self.alone:
            return (self.version, self.signature.name)
        shapes = tuple((name, array.shape[1:]) for name, array in self.inputs.items())
        return (self.version, self.signature.name, shapes)


@dataclass(frozen=True)
class _Batch:
    """Tasks that run together, and how."""

    tasks: list[Task]
    narrow: bool


class Scheduler:
    """The line and the threads that work it off.

    Args:
        parameters: Sizes, waiting time, number of threads.
        metrics: Told of every run.
    """

    def __init__(self, parameters: Batching, metrics: Metrics) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._changed = threading.Condition()
        self._lines: dict[Hashable, deque[Task]] = {}
        self._waiting: dict[tuple[Lease, str], int] = {}  # rows, by version and signature
        self._closed = False
        self._running = 0
        self._wide = False  # whether what runs has all cores; never so without narrow runs
        self._runners = max(parameters.threads, parameters.narrow_runs)
        for number in range(self._runners):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    def submit(
        self, version: Lease, signature: Signature, inputs: Arrays, rows: int | None, deadline: float | None
    ) -> list["Future[Arrays]"]:
        """Puts a request into the line; a large one as several pieces, whose results follow each other.

        Raises:
            InvalidArgument: More rows than one request may have.
            Unavailable: The line is full, or the server is stopping.
        """
        alone = rows is None or not self._parameters.enabled
        pieces = self._pieces(rows, inputs)
        tasks = [Task(version, signature, part, size, alone, deadline) for size, part in pieces]
        place = (version, signature.name)
        weight = sum(task.weight for task in tasks)
        room = self._parameters.queue_rows
        with self._changed:
            if self._closed:
                raise Unavailable("the model server is shutting down")
            waiting = self._waiting.get(place, 0)
            if waiting and waiting + weight > room:
                self._metrics.rejected(version.model)
                raise Unavailable(f"the queue of model {version.model!r} is full: {waiting} of {room} rows are waiting")
            for task in tasks:
                version.acquire()  # until the task is done, also when its caller is gone while it runs
                self._lines.setdefault(task.kind, deque()).append(task)
                self._count(task, +1)
            self._changed.notify(len(tasks))
        for task in tasks:
            task.future.add_done_callback(partial(self._ended, task))
        return [task.future for task in tasks]

    def close(self) -> None:
        """Takes no more; the runners end when the line is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pieces(self, rows: int | None, inputs: Arrays) -> list[tuple[int | None, Arrays]]:
        if rows is None or not self._parameters.enabled:
            return [(rows, inputs)]
        if rows > self._parameters.request_rows:
            most = self._parameters.request_rows
            raise InvalidArgument(f"the request has {rows} rows, expected at most {most} (max_batch_size)")
        size = self._parameters.piece_rows
        return [
            (min(size, rows - start), {name: array[start : start + size] for name, array in inputs.items()})
            for start in range(0, rows, size)
        ]

    def _count(self, task: Task, sign: int) -> None:
        place = (task.version, task.signature.name)
        left = self._waiting.get(place, 0) + sign * task.weight
        if left:
            self._waiting[place] = left
        else:
            self._waiting.pop(place, None)
        self._metrics.waiting(task.version.model, sign * task.weight)

    def _ended(self, task: Task, future: "Future[Arrays]") -> None:
        """Lets the version go, and takes a cancelled task out of the line unless a runner has seen it already."""
        if future.cancelled():
            with self._changed:
                line = self._lines.get(task.kind)
                if line is not None and task in line:
                    line.remove(task)
                    self._left(task)
        task.version.release()

    def _left(self, task: Task) -> None:
        self._count(task, -1)
        if not self._lines.get(task.kind, True):
            del self._lines[task.kind]

    def _work(self) -> None:
        while batch := self._take():
            tasks = batch.tasks
            try:
                self._run(batch)
            except ServingError as error:
                _fail(tasks, error)
            except Exception:
                _fail(tasks, _failure(tasks[0]))
            finally:
                self._done()

    def _take(self) -> "_Batch | None":
        """What runs next; None when the server stops."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [line for line in self._lines.values() if self._is_due(line, now)]
                if due and self._wide:
                    self._changed.wait()
                elif due:
                    narrow, rows = self._share(due)
                    tasks = self._pop(min(due, key=lambda line: line[0].enqueued), now, rows)
                    if tasks:
                        self._running += 1
                        self._wide = self._parameters.enabled and self._parameters.narrow_runs > 1 and not narrow
                        return _Batch(tasks, narrow)
                elif self._lines:
                    oldest = min(line[0].enqueued for line in self._lines.values())
                    left = oldest + self._parameters.timeout_s - now
                    self._changed.wait(min(max(0.0, left), threading.TIMEOUT_MAX))
                elif self._closed:
                    return None
                else:
                    self._changed.wait()

    def _share(self, due: Sequence[deque[Task]]) -> tuple[bool, int]:
        """Whether the next run is a narrow one, and its most rows: its part of what waits, so that all runners work."""
        waiting, most = sum(map(len, due)), self._parameters.batch_rows
        if self._parameters.narrow_runs == 1 or (not self._running and waiting < self._runners):
            return False, most
        if not self._parameters.enabled:
            return True, most
        rows = sum(task.weight for line in due for task in line)
        share = math.ceil(rows / (self._runners - self._running))
        return True, min(most, self._parameters.padded(max(share, 1)))

    def _done(self) -> None:
        with self._changed:
            self._running -= 1
            if self._wide:
                self._wide = False
                self._changed.notify_all()

    def _is_due(self, line: deque[Task], now: float) -> bool:
        head = line[0]
        full = head.alone or sum(task.weight for task in line) >= self._parameters.batch_rows
        return full or self._closed or now - head.enqueued >= self._parameters.timeout_s

    def _pop(self, line: deque[Task], now: float, most: int) -> list[Task]:
        """As many tasks from the front as fit into `most` rows, without those that nobody waits for any more."""
        tasks: list[Task] = []
        rows = 0
        while line and (not tasks or (not line[0].alone and rows + line[0].weight <= most)):
            task = line.popleft()
            self._left(task)
            if not task.future.set_running_or_notify_cancel():
                continue
            if task.deadline is not None and task.deadline <= now:
                task.future.set_exception(DeadlineExceeded("the deadline passed while the request was waiting"))
                continue
            self._metrics.queued(task.version.model, now - task.enqueued)
            tasks.append(task)
            rows += task.weight
        return tasks

    def _run(self, batch: "_Batch") -> None:
        tasks, narrow = batch.tasks, batch.narrow
        first = tasks[0]
        if first.alone:
            self._answer(first, narrow)
            return
        rows = sum(task.weight for task in tasks)
        padded = self._parameters.padded(rows)
        try:
            outputs = self._timed(first, _stack(tasks, padded), rows, padded, narrow)
        except ServingError:
            if len(tasks) == 1:
                raise
            for task in tasks:  # one caller's values made the run fail: the others shall not pay for it
                self._answer(task, narrow)
            return
        if any(array.ndim == 0 or array.shape[0] != padded for array in outputs.values()):
            if rows == padded == first.rows:
                first.future.set_result(outputs)
                return
            for task in tasks:  # an output without the batch in front cannot be split
                self._answer(task, narrow)
            return
        start = 0
        for task in tasks:
            end = start + task.weight
            task.future.set_result({name: array[start:end] for name, array in outputs.items()})
            start = end

    def _answer(self, task: Task, narrow: bool) -> None:
        """Runs a task by itself."""
        try:
            task.future.set_result(self._timed(task, task.inputs, task.weight, task.weight, narrow))
        except ServingError as error:
            task.future.set_exception(error)

    def _timed(self, task: Task, inputs: Arrays, rows: int, padded: int, narrow: bool) -> Arrays:
        start = time.monotonic()
        try:
            outputs = task.version.servable.run(task.signature.name, inputs, narrow=narrow)
        except ServingError:
            raise
        except Exception:
            raise _failure(task) from None
        self._metrics.ran(task.version.model, time.monotonic() - start, rows=rows, padded=padded)
        return outputs


def _stack(tasks: Sequence[Task], padded: int) -> Arrays:
    """The inputs of all tasks one below the other; the last row is repeated up to the padded size."""
    stacked = {}
    rows = sum(task.weight for task in tasks)
    for name, last in tasks[-1].inputs.items():
        parts = [task.inputs[name] for task in tasks]
        if padded > rows:
            parts.append(np.repeat(last[-1:], padded - rows, axis=0))
        stacked[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return stacked


def _failure(task: Task) -> Internal:
    """What the caller is told of the exception that is being handled; the log has the rest."""
    version = task.version
    event(logging.ERROR, "the model failed", traceback=True, model=version.model, version=version.number)
    return Internal("the model failed; the server's log says why")


def _fail(tasks: Sequence[Task], error: ServingError) -> None:
    for task in tasks:
        if not task.future.done():
            task.future.set_exception(error)
