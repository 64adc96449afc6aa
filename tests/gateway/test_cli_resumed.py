"""A run of `whence classify` that was ended, or whose disk was full, goes on where it was and loses nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import FaultyModelServer, Hang, good, pixels_of
from tests.gateway.processes import ROOT
from tests.gateway.whence import NAMES, begin, command, results, rows, wait_for, whence


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
