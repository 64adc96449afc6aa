"""Files and ledgers that survive a kill."""

import subprocess
import sys
from pathlib import Path

import pytest

from training import durable


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    for data in (b"a long first version", b"short"):
        durable.write(tmp_path / "folder/file", data)
    assert (tmp_path / "folder/file").read_bytes() == b"short"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    durable.write(tmp_path / "file", b"old")

    def fail() -> None:
        with durable.writing(tmp_path / "file") as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path) -> None:
    durable.write(tmp_path / "file", b"old")
    script = """
import sys, time, pathlib
from training import durable
with durable.writing(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half of the n")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "file")], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert (tmp_path / "file").read_bytes() == b"old"
    durable.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sweep_removes_only_what_was_half_written(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in (".met_1.jpg.part", "met_2.jpg", ".lock"):
        (tmp_path / "images" / name).touch()
    durable.sweep(tmp_path)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"met_2.jpg", ".lock"}


def test_ledger_keeps_whole_lines_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with durable.Ledger(path) as ledger:
        ledger.append({"title": "Vase with\nornament · 花瓶"})
    with path.open("ab") as file:
        file.write(b'{"title": "cut o')
    with durable.Ledger(path) as ledger:
        ledger.append({"title": "next"})
    with durable.Ledger(path) as ledger:
        assert ledger.lines == [{"title": "Vase with\nornament · 花瓶"}, {"title": "next"}]


def test_ledger_passes_over_a_line_that_a_broken_disk_made(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(b'{"a": 1}\n\0\0\0\0\n[]\n{"a": 2}\n')
    with durable.Ledger(path) as ledger:
        assert ledger.lines == [{"a": 1}, {"a": 2}]


def test_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    with durable.locked(tmp_path), pytest.raises(durable.InUse), durable.locked(tmp_path):
        pass
    with durable.locked(tmp_path):
        pass
