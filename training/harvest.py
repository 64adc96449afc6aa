"""Many objects at once: which to ask for next, what became of each, when it is enough. Threads ask, one writes down."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tqdm import tqdm

from training import durable, met
from training.catalogue import Candidate
from training.met import Museum, Record
from training.web import ComeBackLater

TOO_MANY_FAILURES: Final = 20  # in a row: the server is down, does not want us, or is not the museum's
UNDECIDED: Final = (met.FAILED, met.ABSENT)  # outcomes after which an object is asked for again


class Unfinished(RuntimeError):
    """The run ended early; what it has is safe, and the same command goes on."""


@dataclass
class Shelf:
    """One label: what is still to be asked for, what is under way, what is there."""

    label: str
    queue: list[Candidate]
    target: int
    position: int = 0
    under_way: int = 0
    digests: set[str] = field(default_factory=set)  # of saved pictures; two objects with one picture count once

    def next(self, outcomes: "Outcomes") -> Candidate | None:
        """The next object to ask for, or None while enough of them are saved or under way, or when there are no more.

        So the objects asked for are always the shortest beginning of the queue that fills the shelf, whatever the
        threads do.
        """
        while self.position < len(self.queue) and len(self.digests) + self.under_way < self.target:
            candidate = self.queue[self.position]
            self.position += 1
            known = outcomes.finished(candidate)
            if known is None:
                self.under_way += 1
                return candidate
            self.settle(known)
        return None

    def settle(self, record: Record) -> None:
        """Count what became of an object."""
        if record.outcome == met.SAVED:
            self.digests.add(record.row["sha256"])


class Outcomes:
    """The ledger's records by object, as far as they still hold."""

    def __init__(self, ledger: durable.Ledger, out: Path) -> None:
        self._ledger, self._out = ledger, out
        self._records = {record.object_id: record for line in ledger.lines if (record := Record.from_json(line))}

    def finished(self, candidate: Candidate) -> Record | None:
        """What became of the object in this run or an earlier one; None when it has to be asked for (again)."""
        record = self._records.get(candidate.object_id)
        if record is None or record.label != candidate.label or record.outcome in UNDECIDED:
            return None
        if record.outcome == met.SAVED and not self._on_disk(record):
            return None
        return record

    def add(self, record: Record) -> None:
        """Write it down for good."""
        self._ledger.append(record.to_json())
        self._records[record.object_id] = record

    def drop(self, absent: list[Record]) -> None:
        """Write down that these objects are not there, and forget the list."""
        for record in absent:
            self.add(replace(record, outcome=met.DROPPED))
        absent.clear()

    def all(self) -> Iterable[Record]:
        """The last record of every object asked for."""
        return self._records.values()

    def _on_disk(self, record: Record) -> bool:
        try:
            return (self._out / record.row["file"]).stat().st_size == record.bytes
        except OSError:
            return False


def harvest(museum: Museum, shelves: list[Shelf], outcomes: Outcomes, out: Path, *, workers: int) -> None:
    """Fill the shelves in turns, so that a run cut short is balanced too. Raises Unfinished.

    An object that is not found is dropped only when others are found before and after it, or before it and there are no
    more: a wrong address answers 404 to everything, and so may a firewall.
    """
    total = sum(min(shelf.target, len(shelf.queue)) for shelf in shelves)
    failures, found = 0, False
    absent: list[Record] = []
    under_way: dict[Future[Record], Shelf] = {}
    with (
        tqdm(total=total, unit="picture", smoothing=0.05, mininterval=0.5 if sys.stderr.isatty() else 60) as bar,
        ThreadPoolExecutor(workers, thread_name_prefix="met") as pool,
    ):
        try:
            while True:
                for shelf, candidate in _turns(shelves, outcomes, 2 * workers - len(under_way)):
                    under_way[pool.submit(museum.collect, candidate, out)] = shelf
                bar.update(sum(len(shelf.digests) for shelf in shelves) - bar.n)
                if not under_way:
                    if found:
                        outcomes.drop(absent)
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    shelf = under_way.pop(future)
                    shelf.under_way -= 1
                    record = future.result()
                    outcomes.add(record)
                    shelf.settle(record)
                    found = found or record.outcome == met.SAVED
                    absent += [record] if record.outcome == met.ABSENT else []
                    failures = failures + 1 if record.outcome in UNDECIDED else 0
                    if failures >= TOO_MANY_FAILURES:
                        raise Unfinished(
                            f"{failures} objects in a row failed at {museum.api}, the last with: {record.reason}"
                        )
                    if found and not failures:
                        outcomes.drop(absent)
        except ComeBackLater as error:
            raise Unfinished(str(error)) from error
        finally:
            museum.web.stop()
            pool.shutdown(cancel_futures=True)
            for future, shelf in under_way.items():  # what was complete when we stopped is not lost
                if future.done() and not future.cancelled() and future.exception() is None:
                    outcomes.add(future.result())
                    shelf.settle(future.result())


def _turns(shelves: list[Shelf], outcomes: Outcomes, places: int) -> Iterator[tuple[Shelf, Candidate]]:
    """Up to `places` objects to ask for, one of each shelf after the other; the emptiest shelf first."""
    waiting = sorted(shelves, key=lambda shelf: (shelf.under_way + len(shelf.digests), shelf.label))
    while waiting and places > 0:
        for shelf in list(waiting):
            candidate = shelf.next(outcomes) if places > 0 else None
            if candidate is None:
                waiting.remove(shelf)
            else:
                places -= 1
                yield shelf, candidate


def pictures(shelves: list[Shelf], outcomes: Outcomes) -> list[dict[str, str]]:
    """The rows of metadata.csv: of each label the first `target` different pictures in its queue's order.

    A picture that occurs under two labels (an album's cover, a placeholder) says nothing of either and is left out.
    """
    chosen: dict[str, list[dict[str, str]]] = {}
    for shelf in shelves:
        by_digest: dict[str, dict[str, str]] = {}
        for candidate in shelf.queue[: shelf.position]:
            record = outcomes.finished(candidate)
            if record and record.outcome == met.SAVED and len(by_digest) < shelf.target:
                by_digest.setdefault(record.row["sha256"], record.row)
        chosen[shelf.label] = list(by_digest.values())
    labels_of = Counter(row["sha256"] for rows in chosen.values() for row in rows)
    return [row for rows in chosen.values() for row in rows if labels_of[row["sha256"]] == 1]
