"""POST /v1/feedback: what it takes, what it keeps, and that nothing acknowledged is ever lost."""

import csv
import io
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.feedback.__main__ import write
from gateway.feedback.entries import Entry, Kept
from gateway.feedback.stores import WAIT_S, SqliteStore, Store, open_store
from gateway.settings import Settings, SettingsError
from tests.gateway.processes import Gateway

GOOD = {"request_id": "abc-1", "culture": "Dutch", "note": "signed on the back", "picture_sha256": "0f" * 32}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "feedback.sqlite3"


@pytest.fixture
def make_app(make_app: Callable[..., Flask]) -> Iterator[Callable[..., Flask]]:
    """As everywhere; the databases are closed afterwards."""
    apps: list[Flask] = []

    def make(**settings: object) -> Flask:
        apps.append(make_app(**settings))
        return apps[-1]

    yield make
    for app in apps:
        if "feedback" in app.extensions:
            app.extensions["feedback"].close()


@pytest.fixture
def http(make_app: Callable[..., Flask], database: Path) -> FlaskClient:
    return make_app(feedback_database=f"sqlite:///{database}").test_client()


def kept(database: Path) -> list[Entry]:
    return entries(SqliteStore(database))


def entries(store: Store) -> list[Entry]:
    with closing(store):
        return [each.entry for each in store.all()]


def test_feedback_is_kept_before_it_is_acknowledged(http: FlaskClient, database: Path) -> None:
    answer = http.post("/v1/feedback", json=GOOD)
    assert answer.status_code == 201, answer.text
    assert kept(database) == [Entry("abc-1", "Dutch", "signed on the back", "0f" * 32)]


def test_note_and_digest_may_be_left_out(http: FlaskClient, database: Path) -> None:
    assert http.post("/v1/feedback", json={"request_id": "a", "culture": "Côte d'Ivoire (Baulé)"}).status_code == 201
    assert kept(database) == [Entry("a", "Côte d'Ivoire (Baulé)")]


def test_the_same_key_is_kept_once(http: FlaskClient, database: Path) -> None:
    first, second = (http.post("/v1/feedback", json=GOOD, headers={"Idempotency-Key": '"k1"'}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.get_json()["repeated"] is True
    assert second.get_json()["received_at"] == first.get_json()["received_at"]
    assert len(kept(database)) == 1


def test_the_same_key_for_other_feedback_is_a_conflict(http: FlaskClient, database: Path) -> None:
    http.post("/v1/feedback", json=GOOD, headers={"Idempotency-Key": "k1"})
    answer = http.post("/v1/feedback", json=GOOD | {"culture": "Greek"}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.get_json()["type"]) == (409, "/problems/conflict")
    assert len(kept(database)) == 1


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"culture": "Dutch"},
        {"request_id": "a"},
        GOOD | {"request_id": "a b"},
        GOOD | {"culture": ""},
        GOOD | {"culture": "<b>"},
        GOOD | {"culture": "x" * 65},
        GOOD | {"culture": 7},
        GOOD | {"note": "x" * 2001},
        GOOD | {"note": "\0"},
        GOOD | {"note": "\ud800"},
        GOOD | {"picture_sha256": "abc"},
        GOOD | {"picture": "aGVsbG8="},
    ],
    ids=str,
)
def test_what_is_not_feedback_is_refused(http: FlaskClient, database: Path, document: dict[str, Any]) -> None:
    answer = http.post("/v1/feedback", json=document)
    assert (answer.status_code, answer.get_json()["type"]) == (400, "/problems/bad-request")
    assert kept(database) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[]", {}, 400),
        (b"{", {}, 400),
        (b"", {}, 400),
        (b"{}" + b" " * 20_000, {}, 413),
        (b"{}", {"Content-Type": "image/jpeg"}, 415),
        (b"{}", {"Idempotency-Key": "a b"}, 400),
    ],
)
def test_a_wrong_request_is_refused(http: FlaskClient, body: bytes, headers: dict[str, str], status: int) -> None:
    assert (
        http.post("/v1/feedback", data=body, headers={"Content-Type": "application/json"} | headers).status_code
        == status
    )


def test_who_says_too_much_is_told_when_to_come_again(make_app: Callable[..., Flask], database: Path) -> None:
    http = make_app(feedback_database=f"sqlite:///{database}", feedback_per_minute=3).test_client()
    answers = [http.post("/v1/feedback", json=GOOD) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_without_a_database_there_is_no_such_address(make_app: Callable[..., Flask]) -> None:
    http = make_app().test_client()
    assert http.post("/v1/feedback", json=GOOD).status_code == 404
    assert "/v1/feedback" not in http.get("/openapi.json").get_json()["paths"]


def test_a_database_that_cannot_be_opened_stops_the_start(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SettingsError, match="WHENCE_FEEDBACK_DATABASE"):
        make_app(feedback_database=f"sqlite:///{tmp_path}/file/feedback.sqlite3")


def test_a_database_that_breaks_is_told_and_asks_to_come_again(http: FlaskClient, database: Path) -> None:
    http.post("/v1/feedback", json=GOOD)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE feedback")
    answer = http.post("/v1/feedback", json=GOOD)
    assert (answer.status_code, answer.get_json()["type"]) == (503, "/problems/not-stored")
    assert "Retry-After" in answer.headers


@contextmanager
def no_room_left(*files: Path) -> Iterator[None]:
    """No file of this process can grow beyond the largest of `files`: a disk that is full, for SQLite."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max((file.stat().st_size for file in files), default=0), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_nothing_is_lost_and_what_was_refused_can_be_sent_again(http: FlaskClient, database: Path) -> None:
    def say(number: int) -> tuple[int, Any]:
        headers = {"Idempotency-Key": f"key-{number}"}
        answer = http.post("/v1/feedback", json=GOOD | {"request_id": f"id-{number}"}, headers=headers)
        return answer.status_code, answer.get_json().get("type")

    assert [say(number) for number in range(3)] == [(201, None)] * 3
    with no_room_left(database, database.with_name(f"{database.name}-wal")):
        assert [say(number) for number in range(3, 6)] == [(503, "/problems/not-stored")] * 3
        assert say(0) == (200, None)
    assert [say(number) for number in range(6)] == [(200, None)] * 3 + [(201, None)] * 3
    assert [entry.request_id for entry in kept(database)] == [f"id-{number}" for number in range(6)]


def test_a_gateway_that_starts_without_room_keeps_feedback_as_soon_as_there_is_some(
    make_app: Callable[..., Flask], http: FlaskClient, database: Path
) -> None:
    assert http.post("/v1/feedback", json=GOOD).status_code == 201
    http.application.extensions["feedback"].close()  # as a worker that ends; the log goes into the file
    with no_room_left():
        another = make_app(feedback_database=f"sqlite:///{database}").test_client()
        assert another.get("/healthz").status_code == 200
        assert another.post("/v1/feedback", json=GOOD).get_json()["type"] == "/problems/not-stored"
    assert another.post("/v1/feedback", json=GOOD).status_code == 201
    assert len(kept(database)) == 2


def test_export_is_csv_for_the_next_training_run(http: FlaskClient, database: Path) -> None:
    http.post("/v1/feedback", json=GOOD | {"note": 'says "Leiden", 1640\nsee back'})
    command = [sys.executable, "-m", "gateway.feedback", "export", "--database", f"sqlite:///{database}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    (row,) = csv.DictReader(io.StringIO(run.stdout))
    assert row.pop("received_at").startswith("20")
    assert row == GOOD | {"note": 'says "Leiden", 1640\nsee back'}


@pytest.mark.parametrize("url", ["sqlite:///{}/none.sqlite3", "postgresql:///none?host={}"])
def test_export_says_what_cannot_be_read_and_makes_nothing(url: str, tmp_path: Path) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    command = [sys.executable, "-m", "gateway.feedback", "export", "--database", url.format(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode != 0
    assert str(tmp_path) in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("note", ["=HYPERLINK(1)", "+1", "-1+1", "@SUM(1)", "\t=1"])
def test_a_spreadsheet_computes_nothing_of_an_export(note: str) -> None:
    out = io.StringIO()
    write([Kept(Entry("abc-1", "Dutch", note), "2026-11-25")], out)
    [row] = csv.DictReader(io.StringIO(out.getvalue()))
    assert row["note"] == f"'{note}"
    assert row["culture"] == "Dutch"


def test_nothing_acknowledged_is_lost_when_the_gateway_is_killed(start: Callable[..., Gateway], database: Path) -> None:
    """SIGKILL to every process in the middle of many writes: what was answered 201 is there, and the file is whole."""
    gateway = start(feedback_database=f"sqlite:///{database}", feedback_per_minute=100_000, workers=2)
    acknowledged: list[str] = []
    enough = threading.Event()

    def say(name: str) -> None:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            try:
                for number in range(10_000):
                    said = {"request_id": f"{name}-{number}", "culture": "Greek"}
                    if client.post("/v1/feedback", json=said).status_code == 201:
                        acknowledged.append(said["request_id"])
                    if len(acknowledged) >= 60:
                        enough.set()
            except httpx.HTTPError:
                return  # the kill

    threads = [threading.Thread(target=say, args=(f"t{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    assert enough.wait(120)
    for process in (gateway.process.pid, *gateway.workers()):
        os.kill(process, signal.SIGKILL)
    gateway.process.wait()
    for thread in threads:
        thread.join()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = [entry.request_id for entry in kept(database)]
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("locked", ["before the gateway starts", "later"])
def test_a_locked_database_takes_no_longer_than_the_request_has(
    locked: str, make_app: Callable[..., Flask], database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as other, ThreadPoolExecutor(4) as pool:
        if locked == "later":
            app = make_app(feedback_database=f"sqlite:///{database}")
            other.execute("BEGIN IMMEDIATE")
        else:
            other.execute("BEGIN EXCLUSIVE")
            app = make_app(feedback_database=f"sqlite:///{database}")
            assert "feedback cannot be kept yet" in caplog.text
        start = time.monotonic()
        answers = [
            pool.submit(app.test_client().post, "/v1/feedback", json=GOOD, headers={"X-Request-Timeout": "1"})
            for _ in range(4)
        ]
        assert [answer.result().status_code for answer in answers] == [503] * 4
        assert time.monotonic() - start < WAIT_S
        other.rollback()
    assert "database is locked" in caplog.text
    assert app.test_client().post("/v1/feedback", json=GOOD).status_code == 201


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of Debian's, on a socket of its own."""
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = (
        Path("/tmp") / f"whence-postgresql-{os.getpid()}"
    )  # its own user must be able to enter, and sockets be short
    user: list[str] = []
    folder.mkdir(mode=0o755)
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        os.chown(folder, *(int(subprocess.check_output(["id", flag, "postgres"])) for flag in ("-u", "-g")))
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*user, programs[-1] / "initdb", "-D", data, "-A", "trust", "-U", "whence"], check=True, **quiet)  # type: ignore[call-overload]
    control = [*user, programs[-1] / "pg_ctl", "-D", data, "-w", "-o", f"-k {folder} -c listen_addresses=''"]
    subprocess.run([*control, "-l", folder / "log", "start"], check=True, **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql:///postgres?host={folder}&user=whence"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)  # type: ignore[call-overload]
        subprocess.run(["rm", "-rf", folder], check=True)


def test_postgresql_keeps_the_same(postgresql: str, make_app: Callable[..., Flask]) -> None:
    http = make_app(feedback_database=postgresql).test_client()
    keys = {"Idempotency-Key": "k1"}
    assert [http.post("/v1/feedback", json=GOOD, headers=keys).status_code for _ in range(2)] == [201, 200]
    assert http.post("/v1/feedback", json=GOOD | {"culture": "Greek"}, headers=keys).status_code == 409
    assert entries(open_store(postgresql)) == [Entry("abc-1", "Dutch", "signed on the back", "0f" * 32)]


def test_a_postgresql_that_is_away_is_told(make_app: Callable[..., Flask]) -> None:
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    http = make_app(feedback_database="postgresql://127.0.0.1:1/nowhere").test_client()
    assert http.post("/v1/feedback", json=GOOD).status_code == 503


def test_settings_know_only_databases_that_there_are() -> None:
    with pytest.raises(SettingsError, match="WHENCE_FEEDBACK_DATABASE"):
        Settings.from_environ({"WHENCE_FEEDBACK_DATABASE": "mysql://localhost/db"})
