"""The contact sheet of `whence classify --html`: every picture of the output, safe from names, nobody else's file."""

from pathlib import Path

from tests.gateway.conftest import RED, picture
from tests.gateway.whence import results, whence


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
