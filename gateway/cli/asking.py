"""Asks the service about many pictures, a bounded number at once, and gives the answers in the pictures' order."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from gateway.cli.sources import Picture
from gateway.remote import Answer, Failed, Refused, Whence

Outcome = Answer | Refused | Failed


def ask(pictures: Iterable[Picture], whence: Whence, *, jobs: int) -> Generator[tuple[Picture, Outcome], None, None]:
    """What came of each picture. Raises Unavailable, after which nothing more is asked."""
    pool = ThreadPoolExecutor(jobs)
    under_way: deque[tuple[Picture, Future[Outcome]]] = deque()
    try:
        for picture in pictures:
            under_way.append((picture, pool.submit(_ask_one, picture, whence)))
            if len(under_way) == 2 * jobs:  # enough that nobody idles while one picture takes long
                yield _first(under_way)
        while under_way:
            yield _first(under_way)
    finally:
        whence.stop()
        pool.shutdown(cancel_futures=True)


def _first(under_way: deque[tuple[Picture, Future[Outcome]]]) -> tuple[Picture, Outcome]:
    picture, future = under_way.popleft()
    return picture, future.result()


def _ask_one(picture: Picture, whence: Whence) -> Outcome:
    try:
        data = picture.file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a catalogue may hold any text as path
        return Refused(f"The file cannot be read: {getattr(error, 'strerror', None) or error}")
    try:
        return whence.classify(data)
    except (Refused, Failed) as error:
        return error
