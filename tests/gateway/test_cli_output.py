"""The output file, cut at every byte: what is whole stays, what is torn goes, nothing is done twice."""

from pathlib import Path

import pytest

from gateway.cli.output import OutputError, taken_up
from gateway.cli.results import Csv, Format, JsonLines
from gateway.cli.sources import Picture
from gateway.remote import Answer, Refused

ANSWER = Answer("Greek", 0.8, "accepted", (("Greek", 0.8), ("British", 0.2)), "culture", "7", "r1")
NASTY = 'he said "no",\nthen\u2028left; {"path": "x"}'
PICTURES = [Picture(f"{NASTY}{n}.jpg", Path("x"), {"note": NASTY, "path": f"{NASTY}{n}.jpg"}) for n in range(3)]
FORMATS: dict[str, Format] = {"csv": Csv(["note", "path"], 3), "jsonl": JsonLines(3)}


def write(path: Path, form: Format, pictures: list[Picture]) -> None:
    with taken_up(path, form) as (out, earlier):
        for picture in pictures:
            if not earlier.done[picture.path]:
                out.write(picture, ANSWER if picture is not PICTURES[1] else Refused('broken, "very"\n'))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_output_cut_anywhere_is_completed(tmp_path: Path, kind: str) -> None:
    form, path = FORMATS[kind], tmp_path / "out"
    write(path, form, PICTURES)
    whole = path.read_bytes()
    first = whole.index(b"\n", len(form.head())) + 1 if kind == "jsonl" else 0
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        write(path, form, PICTURES)
        assert path.read_bytes() == whole, cut


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_written_is_read_back(tmp_path: Path, kind: str) -> None:
    form, path = FORMATS[kind], tmp_path / "out"
    write(path, form, PICTURES)
    with taken_up(path, form) as (_, earlier):
        assert earlier.done == {picture.path: 1 for picture in PICTURES}
        assert earlier.problems == 1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("text", ["hello", "hello\n", '{"a": 1}\n', "path,culture\nx,y\n", '"\n"', "[1]\n", "7\n"])
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / "out"
    path.write_text(text)
    with pytest.raises(OutputError, match="is not an output"), taken_up(path, FORMATS[kind]):
        pass
    assert path.read_text() == text
