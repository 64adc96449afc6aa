"""`whence classify` with a catalogue: its columns stay, and each row has its answer or its problem."""

from pathlib import Path

import pytest

from tests.gateway.whence import rows, whence


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
