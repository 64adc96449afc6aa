"""`python -m training collect`: how a run ends, and what the next one does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serving.images import decode
from tests.training.collecting import command, pictures, rows, saved
from tests.training.fake_met import FakeMet, picture_of
from training.__main__ import main


def start(met: FakeMet, out: Path, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "training", *command(met, out, **options)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip


def wait_for_lines(ledger: Path, lines: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"{ledger} never had {lines} lines")


def test_killed_run_loses_nothing_and_asks_for_no_finished_object_again(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 61):
        met.add(number, ("French", "Greek", "Italian")[number % 3], picture_of(number, width=300, height=300))
    met.answers[7]["primaryImage"] = met.answers[7]["primaryImageSmall"] = ""
    met.delay_s = 0.02
    out = tmp_path / "out"
    for lines in (8, 25):  # killed twice, each time in the middle of several pictures
        process = start(met, out)
        wait_for_lines(out / "objects.jsonl", lines)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with (out / "objects.jsonl").open("ab") as ledger:
        ledger.write(b'{"object_id": 3, "lab')  # and the disk was full for the last line
    entries = [json.loads(line) for line in (out / "objects.jsonl").read_bytes().splitlines()[:-1]]
    assert all(decode((out / entry["row"]["file"]).read_bytes()).any() for entry in entries if entry["row"])
    assert all(decode((out / name).read_bytes()).any() for name in pictures(out) if not name.endswith(".part"))
    met.delay_s = 0.0
    before = {entry["object_id"]: met.count(met.object_path(entry["object_id"])) for entry in entries}
    assert main(command(met, out)) == 0
    after = {number: met.count(met.object_path(number)) for number in before}
    assert after == before
    assert saved(out) == set(range(1, 61)) - {7}
    assert main(command(met, tmp_path / "whole")) == 0
    assert (out / "metadata.csv").read_bytes() == (tmp_path / "whole/metadata.csv").read_bytes()
    assert pictures(out) == pictures(tmp_path / "whole")


def test_sigterm_ends_a_run_with_metadata_of_what_is_there(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 61):
        met.add(number)
    met.delay_s = 0.03
    process = start(met, tmp_path / "out")
    wait_for_lines(tmp_path / "out/objects.jsonl", 10)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert b"goes on from here" in output
    assert 10 <= len(rows(tmp_path / "out")) < 60


def test_second_run_asks_for_nothing_when_all_is_there(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 6):
        met.add(number)
    main(command(met, tmp_path / "out"))
    asked = len(met.requests)
    main(command(met, tmp_path / "out"))
    assert len(met.requests) == asked


def test_next_run_asks_again_for_a_picture_that_was_deleted(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    main(command(met, tmp_path / "out"))
    (tmp_path / "out/images/Italian/met_1.jpg").unlink()
    main(command(met, tmp_path / "out"))
    assert pictures(tmp_path / "out") == {"images/Italian/met_1.jpg"}


def test_next_run_with_a_larger_cap_only_adds(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 11):
        met.add(number)
    main(command(met, tmp_path / "out", per_culture=3))
    few = rows(tmp_path / "out")
    main(command(met, tmp_path / "out", per_culture=6))
    assert rows(tmp_path / "out")[:3] == few
    assert len(met.requests) == 12
