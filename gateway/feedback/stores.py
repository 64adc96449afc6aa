"""Where feedback is kept: an SQLite file, or a PostgreSQL database. What `add` returned survives a kill."""

import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.context import Deadline
from gateway.errors import Conflict, NotStored
from gateway.feedback.entries import Entry, Kept
from gateway.settings import SettingsError

log = logging.getLogger("whence.feedback")

SQLITE: Final = "sqlite:///"
# Primary codes, the low eight bits of what it says: a full disk; another process that makes the same file.
_NOT_NOW: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)
WAIT_S: Final = 5  # for another process that writes, or for a database to answer
# Understood by both; the last four columns are the fields of Entry.
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS feedback (
  key TEXT PRIMARY KEY, received_at TEXT NOT NULL,
  request_id TEXT NOT NULL, culture TEXT NOT NULL, note TEXT NOT NULL, picture_sha256 TEXT NOT NULL)
"""
_INSERT: Final = "INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
_FIND: Final = "SELECT * FROM feedback WHERE key = ?"
_LIST: Final = "SELECT * FROM feedback ORDER BY received_at, key"


class Store(Protocol):
    """Keeps entries for good. Safe to use from many threads."""

    def add(self, entry: Entry, key: str | None, deadline: Deadline) -> Kept:
        """Keep `entry`, once for each `key`. Raises Conflict when the key has another entry, or NotStored."""

    def all(self) -> Iterator[Kept]:
        """Every entry, the oldest first. Raises OSError when the database cannot be read."""

    def close(self) -> None:
        """Give back what it holds; nothing is lost by not doing so."""


def open_store(url: str) -> Store:
    """The store at sqlite:///PATH or postgresql://... . Raises SettingsError when there can be none."""
    if not url.startswith(SQLITE):
        return PostgresqlStore(url)
    try:
        return SqliteStore(Path(url.removeprefix(SQLITE)))
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(f"WHENCE_FEEDBACK_DATABASE is {url!r}, which cannot be opened: {error}") from error


class SqliteStore:
    """One file beside the gateway; several processes on one machine may share it, several machines may not."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises OSError or sqlite3.Error.

        Not for a disk that is full, or a file that is locked, at the moment: a worker that starts again then must
        still answer pictures.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        try:
            self._connection()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _NOT_NOW:
                raise
            log.warning("feedback cannot be kept yet: %s", error)

    def _connection(self, wait_s: float = WAIT_S) -> sqlite3.Connection:
        """The connection, made if there is none, which waits at most so long for others. Raises sqlite3.Error."""
        if self._opened is None:
            with ExitStack() as on_error:
                connection = sqlite3.connect(self._path, timeout=wait_s, check_same_thread=False, isolation_level=None)
                on_error.callback(connection.close)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # the log is on the disk before a commit returns
                connection.execute(_TABLE)
                on_error.pop_all()
            self._opened = connection
        return self._opened

    def add(self, entry: Entry, key: str | None, deadline: Deadline) -> Kept:
        """As Store."""
        with _held(self._lock, deadline):
            try:
                connection = self._connection(min(WAIT_S, deadline.left_s))
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * min(WAIT_S, deadline.left_s))}")
                return _add(connection.execute, entry, key)
            except sqlite3.Error as error:
                raise _not_stored(error) from error

    def all(self) -> Iterator[Kept]:
        """As Store."""
        try:
            with self._lock:
                rows = self._connection().execute(_LIST).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error
        return (_kept(row) for row in rows)

    def close(self) -> None:
        """As Store."""
        if self._opened is not None:
            self._opened.close()


class PostgresqlStore:
    """A database that many gateways share. It may be away when the gateway starts; the extra `postgresql` is needed."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError when the driver is not installed."""
        try:
            self._psycopg = import_module("psycopg")
        except ImportError as error:
            raise SettingsError(
                'WHENCE_FEEDBACK_DATABASE names PostgreSQL: install the extra, pip install "whence[postgresql]"'
            ) from error
        self._url = url
        self._lock = threading.Lock()
        self._connection: Any = None

    def add(self, entry: Entry, key: str | None, deadline: Deadline) -> Kept:
        """As Store; once more on a new connection when the old one turns out to be broken: the key makes that safe."""
        key = key or uuid.uuid4().hex
        with _held(self._lock, deadline):
            try:
                try:
                    return _add(self._execute, entry, key)
                except self._psycopg.OperationalError:
                    self._disconnect()
                    if deadline.passed:
                        raise
                    return _add(self._execute, entry, key)
            except self._psycopg.Error as error:
                self._disconnect()
                raise _not_stored(error) from error

    def all(self) -> Iterator[Kept]:
        """As Store."""
        try:
            with self._lock, closing(self._connect()) as connection:
                rows = connection.execute(_LIST).fetchall()
        except self._psycopg.Error as error:
            raise OSError(str(error)) from error
        return (_kept(row) for row in rows)

    def _execute(self, statement: str, values: tuple[str, ...]) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection.execute(statement.replace("?", "%s"), values)

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=WAIT_S,
            tcp_user_timeout=1000 * WAIT_S,  # milliseconds; else a network that went black is waited for without end
            options=f"-c statement_timeout={WAIT_S}s",
        )
        connection.execute(_TABLE)
        return connection

    def close(self) -> None:
        """As Store."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _held(lock: threading.Lock, deadline: Deadline) -> Iterator[None]:
    """The lock, for the time of the block. Raises NotStored when it is not free before the deadline."""
    if not lock.acquire(timeout=deadline.left_s):
        raise _not_stored("others kept the database busy for as long as the request had")
    try:
        yield
    finally:
        lock.release()


def _not_stored(why: object) -> NotStored:
    """The client hears that it was not kept, the operator why."""
    log.warning("feedback is not kept: %s", why)
    return NotStored()


def _add(execute: Callable[[str, tuple[str, ...]], Any], entry: Entry, key: str | None) -> Kept:
    """Insert unless the key is there, in one statement that is a transaction of its own; then see what is there."""
    key = key or uuid.uuid4().hex
    received_at = datetime.now(UTC).isoformat(timespec="microseconds")
    if execute(_INSERT, (key, received_at, *astuple(entry))).rowcount == 1:
        return Kept(entry, received_at)
    before = _kept(execute(_FIND, (key,)).fetchone(), repeated=True)
    if before.entry != entry:
        raise Conflict
    return before


def _kept(row: tuple[str, ...], *, repeated: bool = False) -> Kept:
    _, received_at, *fields = row
    return Kept(Entry(*fields), received_at, repeated)
