"""The command `whence`, in a process of its own, against the real gateway and a scripted model server."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.fakes import FaultyModelServer, Hang, fail, slow
from tests.gateway.conftest import BLUE, picture
from tests.gateway.processes import ROOT, Gateway
from tests.gateway.whence import NAMES, begin, command, rows, whence


def test_a_file_is_answered_as_csv_on_standard_output(url: str, album: Path) -> None:
    (row,) = rows(whence(url, album / "1.jpg").stdout)
    assert (row["path"], row["culture"], row["decision"]) == (str(album / "1.jpg"), "green", "accepted")


def test_text_is_a_sentence(url: str, album: Path) -> None:
    said = whence(url, album / "1.jpg", "--format", "text").stdout
    assert said.startswith(f"{album / '1.jpg'}: resembles objects catalogued as green (")


def test_a_folder_is_searched_for_pictures(url: str, album: Path) -> None:
    (album / "notes.txt").write_text("no picture")
    (album / ".hidden.jpg").write_bytes(picture())
    (album / "deeper").mkdir()
    (album / "deeper/10.PNG").write_bytes(picture(BLUE, "PNG"))
    found = [row["path"] for row in rows(whence(url, album).stdout)]
    assert found == [str(album / f"{number}.jpg") for number in range(9)] + [str(album / "deeper/10.PNG")]


def test_answers_keep_the_order_of_the_pictures(url: str, album: Path, server: FaultyModelServer) -> None:
    server.script(slow(0.5))
    assert [row["culture"] for row in rows(whence(url, album).stdout)] == list(NAMES * 3)


def test_json_lines_tell_everything(url: str, album: Path, tmp_path: Path) -> None:
    whence(url, album, "-o", tmp_path / "out.jsonl", "--top", 2)
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert set(first) == {"path", "culture", "probability", "decision", "top", "model", "model_version", "request_id"}
    assert [first["top"][0]["culture"], len(first["top"])] == ["red", 2]


def test_no_more_pictures_are_under_way_than_jobs(url: str, album: Path, server: FaultyModelServer) -> None:
    hang = Hang()
    server.behaviour = hang
    process = begin(url, album, "--jobs", 3, "-q", "-o", album / "out.csv")
    for _ in range(3):
        assert hang.waiting.acquire(timeout=20)
    too_many = hang.waiting.acquire(timeout=0.3)
    hang.let_go.set()
    assert process.wait(30) == 0
    assert not too_many


# Problems


def test_bad_pictures_are_recorded_with_their_problem(url: str, album: Path, tmp_path: Path) -> None:
    (album / "3.jpg").write_bytes(picture()[:200])
    (album / "4.jpg").write_text("no picture")
    done = whence(url, album, "-o", tmp_path / "out.csv")
    problems = [row["problem"] for row in rows((tmp_path / "out.csv").read_text())]
    assert ["broken" in problems[3].lower(), "accepted format" in problems[4]] == [True, True]
    assert [done.returncode, sum(map(bool, problems))] == [1, 2]


def test_a_problem_of_an_earlier_run_still_counts(url: str, album: Path) -> None:
    (album / "3.jpg").write_bytes(b"no picture")
    statuses = [whence(url, album, "-o", album / "out.csv").returncode for _ in range(2)]
    assert statuses == [1, 1]


def test_a_picture_too_large_is_recorded_though_the_service_stops_reading(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    (tmp_path / "large.jpg").write_bytes(picture() + bytes(8_000_000))
    gateway = start(max_upload_bytes=2048, max_body_bytes=4096)
    (row,) = rows(whence(gateway.url, tmp_path / "large.jpg", "--patience", 5).stdout)
    assert "too large" in row["problem"]


def test_a_picture_on_which_the_service_fails_is_left_for_the_next_run(
    url: str, album: Path, server: FaultyModelServer
) -> None:
    server.script(*[fail(grpc.StatusCode.INTERNAL)] * 3)
    out = album / "out.csv"
    first = whence(url, album, "-o", out, "--jobs", 1)
    missing = 9 - len(rows(out.read_text()))
    second = whence(url, album, "-o", out, "--jobs", 1)
    assert [first.returncode, missing, second.returncode] == [3, 1, 0]
    assert len(rows(out.read_text())) == 9


def test_a_model_that_is_away_is_waited_for(url: str, album: Path, server: FaultyModelServer) -> None:
    server.script(fail(grpc.StatusCode.UNAVAILABLE))
    assert whence(url, album / "1.jpg").returncode == 0


def test_a_service_that_is_not_there_ends_the_run_at_once(album: Path) -> None:
    done = whence("http://127.0.0.1:9", album, "-o", album / "out.csv")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr


# The command itself


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["."],  # a folder without a picture
        ["--html", "sheet.html", "."],
        ["--html", "nowhere/sheet.html", "-o", "out.csv", str(ROOT / "tests/images")],
        ["-o", "out.txt", "."],
        ["--jobs", "0", "."],
        ["--url", "x", "."],
        [],
    ],
)
def test_wrong_use_is_told_and_asks_nothing(url: str, tmp_path: Path, arguments: list[str]) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "gateway.cli", "classify", *arguments]
    done = subprocess.run(line, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "whence" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_is_told_in_words(url: str, album: Path) -> None:
    assert "--top: expected a whole number from 1 to 256" in whence(url, album, "--top", "many").stderr
    assert "--patience: expected a number of seconds" in whence(url, album, "--patience", "nan").stderr


@pytest.mark.parametrize("text", ["key, shown this once:  abc\nline for the file:     catalogue def\n", "\n"])
def test_a_key_file_with_anything_but_a_key_is_wrong_use(url: str, album: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    done = whence(url, album, "--key-file", tmp_path / "key")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "expected the key and nothing else" in done.stderr


def test_the_progress_is_drawn_on_a_terminal(url: str, album: Path) -> None:
    ours, theirs = pty.openpty()
    environ = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    subprocess.run(command(url, album, "-o", album / "out.csv"), env=environ, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "9 of 9" in drawn


def test_names_that_are_no_utf8_come_out_as_they_went_in(url: str, tmp_path: Path) -> None:
    name = b"\xe9.jpg"
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(picture())
    for _ in range(2):
        done = whence(url, tmp_path, "-o", tmp_path / "out.csv")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes().count(name) == 1


def test_the_command_needs_none_of_the_gateways_libraries() -> None:
    heavy = {"flask", "grpc", "numpy", "PIL", "google.protobuf", "prometheus_client"}
    code = f"import sys, gateway.cli; sys.exit(sorted({heavy} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
