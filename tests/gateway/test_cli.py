"""The command `whence`, in a process of its own, against the real gateway and a scripted model server."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from flask import Flask

from tests.fakes import FaultyModelServer, Hang, fail, good, pixels_of, slow
from tests.gateway.conftest import BLUE, GREEN, RED, picture
from tests.gateway.processes import ROOT, Gateway
from tests.listening import listening

COLOURS = (RED, GREEN, BLUE)
NAMES = ("red", "green", "blue")


def command(url: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", "classify", "--url", url, *map(str, arguments)]


def whence(url: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(url, *arguments), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def begin(url: str, *arguments: object) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command(url, *arguments), env=environ, stderr=subprocess.DEVNULL)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def results(out: Path) -> list[dict[str, str]]:
    lines = out.read_text()
    return rows(lines) if out.suffix == ".csv" else [json.loads(line) for line in lines.splitlines()]


def wait_for(condition: Callable[[], bool], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def url(make_app: Callable[..., Flask]) -> Iterator[str]:
    with listening(make_app()) as url:
        yield url


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Nine pictures, red, green and blue in turn."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(picture(COLOURS[number % 3]))
    return folder


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


# Catalogues


def test_a_catalogue_keeps_its_columns(url: str, album: Path) -> None:
    (album / "list.csv").write_text('file,culture,note\n0.jpg,French,"one, two"\n2.jpg,Greek,\n')
    found = rows(whence(url, album / "list.csv").stdout)
    assert [(row["file"], row["culture"], row["note"], row["whence_culture"]) for row in found] == [
        ("0.jpg", "French", "one, two", "red"),
        ("2.jpg", "Greek", "", "blue"),
    ]


def test_a_catalogue_may_come_from_a_spreadsheet(url: str, album: Path) -> None:
    (album / "list.csv").write_text("\ufeffInventar;Bild\n17;0.jpg\n", encoding="utf-8")
    (row,) = rows(whence(url, album / "list.csv", "--column", "bild").stdout)
    assert (row["Inventar"], row["whence_culture"]) == ("17", "red")


def test_a_catalogue_may_lie_elsewhere(url: str, album: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n1.jpg\n")
    (row,) = rows(whence(url, tmp_path / "list.csv", "--root", album).stdout)
    assert row["whence_culture"] == "green"


def test_a_row_without_a_picture_is_a_problem_of_that_row(url: str, album: Path) -> None:
    (album / "list.csv").write_text("path\nmissing.jpg\n1.jpg\n\n")
    done = whence(url, album / "list.csv")
    assert [row["whence_problem"][:26] for row in rows(done.stdout)] == ["The file cannot be read: N", ""]
    assert done.returncode == 1


def test_a_picture_listed_twice_is_answered_twice(url: str, album: Path) -> None:
    (album / "list.csv").write_text("path\n1.jpg\n1.jpg\n")
    for _ in range(2):
        whence(url, album / "list.csv", "-o", album / "out.csv")
    assert len(rows((album / "out.csv").read_text())) == 2


@pytest.mark.parametrize(
    ("catalogue", "complaint"),
    [("a,b\n1,2\n", "has no column"), ("path,path\n1,2\n", "two columns"), ("", "has no column")],
)
def test_a_catalogue_that_is_none_is_told(url: str, album: Path, catalogue: str, complaint: str) -> None:
    (album / "list.csv").write_text(catalogue)
    done = whence(url, album / "list.csv")
    assert done.returncode == 2
    assert complaint in done.stderr


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


# Taking up again


def test_a_second_run_asks_nothing_again(url: str, album: Path, server: FaultyModelServer) -> None:
    whence(url, album, "-o", album / "out.csv")
    calls = len(server.calls)
    done = whence(url, album, "-o", album / "out.csv")
    assert [len(server.calls) - calls, done.returncode] == [0, 0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on_where_it_was(
    url: str, album: Path, server: FaultyModelServer, end: signal.Signals, suffix: str
) -> None:
    out = album / f"out.{suffix}"
    hang = Hang()

    def hang_on_blue(request: object, context: object) -> object:
        blue = pixels_of(request)[0].mean(axis=(0, 1)).argmax() == 2  # type: ignore[arg-type]
        return (hang if blue and not hang.let_go.is_set() else good)(request, context)  # type: ignore[arg-type]

    server.behaviour = hang_on_blue  # type: ignore[assignment]
    process = begin(url, album, "-o", out, "--jobs", 1)
    wait_for(lambda: out.exists() and b"1.jpg" in out.read_bytes())
    process.send_signal(end)
    hang.let_go.set()
    process.wait(30)
    assert whence(url, album, "-o", out).returncode == 0
    assert [row["path"] for row in results(out)] == [str(album / f"{number}.jpg") for number in range(9)]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so(url: str, album: Path, server: FaultyModelServer, told: signal.Signals) -> None:
    if signal.getsignal(told) == signal.SIG_IGN:
        pytest.skip("started in the background of a shell: this process and its children do not hear SIGINT")
    hang = Hang()
    server.behaviour = hang
    process = begin(url, album, "-o", album / "out.csv")
    assert hang.waiting.acquire(timeout=20)
    process.send_signal(told)
    hang.let_go.set()
    assert process.wait(30) == 130


def test_a_file_that_is_no_output_is_left_as_it_is(url: str, album: Path) -> None:
    letter = album / "letter.csv"
    letter.write_text("Dear curator,\nno newline at the end")
    done = whence(url, album, "-o", letter)
    assert done.returncode == 2
    assert letter.read_text() == "Dear curator,\nno newline at the end"


LITTLE_ROOM = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # the write that would go beyond is a short one
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_disk_that_becomes_full_is_told_and_gone_on_after(url: str, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}  # Python would keep short ones
    line = [sys.executable, "-c", LITTLE_ROOM, *command(url, album, "-o", out)]
    done = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert out.stat().st_size == 500
    assert "cannot be written" in done.stderr
    assert whence(url, album, "-o", out).returncode == 0
    assert [row["culture"] for row in results(out)] == list(NAMES) * 3


def test_standard_output_that_takes_nothing_is_told(url: str, album: Path) -> None:
    with open("/dev/full", "wb") as full:
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command(url, album), env=environ, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (3, False)


def test_a_pipe_in_a_folder_is_no_picture(url: str, album: Path) -> None:
    os.mkfifo(album / "pipe.jpg")
    assert len(rows(whence(url, album).stdout)) == 9


# The contact sheet


def test_the_sheet_shows_every_picture_of_the_output(url: str, album: Path, tmp_path: Path) -> None:
    whence(url, album / "0.jpg", "-o", tmp_path / "out.csv")
    whence(url, album, "-o", tmp_path / "out.csv", "--html", tmp_path / "sheet.html")
    assert (tmp_path / "sheet.html").read_text().count('src="data:image/jpeg;base64,') == 9


def test_the_sheet_is_safe_from_names(url: str, tmp_path: Path) -> None:
    (tmp_path / "<img onerror=alert(1)>.jpg").write_bytes(picture())
    whence(url, tmp_path, "-o", tmp_path / "out.csv", "--html", tmp_path / "sheet.html")
    assert "&lt;img onerror=alert(1)&gt;.jpg" in (tmp_path / "sheet.html").read_text()


def test_the_sheet_tells_problems(url: str, album: Path, tmp_path: Path) -> None:
    (album / "4.jpg").write_text("no picture")
    whence(url, album, "-o", tmp_path / "out.jsonl", "--html", tmp_path / "sheet.html")
    assert "cannot be shown" in (tmp_path / "sheet.html").read_text()


def test_the_sheet_stands_any_path_of_a_catalogue(url: str, album: Path, tmp_path: Path) -> None:
    (album / "list.csv").write_text("path\n0.jpg\na\0b.jpg\nhttp://example.org/1.jpg\n")
    done = whence(url, album / "list.csv", "-o", tmp_path / "out.csv", "--html", tmp_path / "sheet.html")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert (tmp_path / "sheet.html").read_text().count("cannot be shown") == 2


def test_the_sheet_takes_no_other_files_place(url: str, album: Path, tmp_path: Path) -> None:
    done = whence(url, "-o", tmp_path / "out.csv", "--html", *sorted(album.iterdir()))  # whose FILE was forgotten
    assert (done.returncode, (album / "0.jpg").read_bytes()) == (2, picture(RED))
    assert not (tmp_path / "out.csv").exists()
    both = tmp_path / "both.html"
    done = whence(url, album, "-o", both, "--format", "csv", "--html", tmp_path / "." / "both.html")
    assert (done.returncode, both.exists(), "the same file" in done.stderr) == (2, False, True)


def test_a_sheet_stays_when_the_output_cannot_be_taken_up(url: str, album: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").write_text("an earlier sheet")
    (tmp_path / "letter.csv").write_text("Dear curator,\n")
    assert whence(url, album, "-o", tmp_path / "letter.csv", "--html", tmp_path / "sheet.html").returncode == 2
    assert (tmp_path / "sheet.html").read_text() == "an earlier sheet"


def test_a_sheet_that_cannot_be_written_is_told_as_such(url: str, album: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").symlink_to("/dev/full")
    done = whence(url, album, "-o", tmp_path / "out.csv", "--html", tmp_path / "sheet.html")
    assert (done.returncode, len(results(tmp_path / "out.csv"))) == (3, 9)
    assert "sheet.html cannot be written" in done.stderr


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
