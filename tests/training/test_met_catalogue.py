"""The museum's CSV, as it is and as it should not be."""

from collections import Counter
from pathlib import Path

import pytest

from tests.training.fake_met import HEADER
from training.catalogue import BadCatalogue, Candidate, in_order, read_catalogue


def written(path: Path, *rows: dict[str, str], header: list[str] = HEADER) -> Path:
    lines = [",".join(header), *(",".join(f'"{row.get(name, "")}"' for name in header) for row in rows)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    return path


def row(number: int, culture: str = "Italian", **columns: str) -> dict[str, str]:
    return {
        "Object ID": str(number),
        "Is Public Domain": "True",
        "Culture": culture,
        "Classification": "Ceramics",
    } | columns


def test_catalogue_counts_every_row_once(tmp_path: Path) -> None:
    path = written(
        tmp_path / "met.csv", row(1), row(1), row(2, "Roman"), row(3, ""), row(4, **{"Is Public Domain": "False"}),
        row(5, "China or Japan"), row(0, **{"Object ID": "not a number"}), row(6, "Japan"),
    )  # fmt: skip
    catalogue = read_catalogue(path)
    assert [candidate.object_id for candidate in catalogue.candidates] == [1, 6]
    assert catalogue.dropped == {
        "listed twice": 1, "another culture": 1, "no culture given": 1, "not in the public domain": 1,
        "two cultures": 1, "row without an Object ID": 1,
    }  # fmt: skip
    assert catalogue.rows == len(catalogue.candidates) + catalogue.dropped.total()


def test_catalogue_reads_titles_of_several_lines_with_quotes_and_commas(tmp_path: Path) -> None:
    path = written(tmp_path / "met.csv", row(1, Title='A ""plate"",\r\n\nwith a castle'), row(2))
    assert [candidate.object_id for candidate in read_catalogue(path).candidates] == [1, 2]


def test_catalogue_finds_columns_by_name_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path / "met.csv", row(1), header=[*reversed(HEADER), "A new column"])
    assert read_catalogue(path).candidates == [Candidate(1, "Italian", "named plainly", "Ceramics")]


def test_catalogue_survives_a_short_row_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    path = written(tmp_path / "met.csv", row(1))
    path.write_bytes(path.read_bytes() + b"1975.1,False\r\n" + b"\xff\xfe,,\r\n")
    assert read_catalogue(path).dropped == {"row without an Object ID": 2}


def test_git_lfs_pointer_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "met.csv"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:063f\nsize 232531366\n")
    with pytest.raises(BadCatalogue, match="Git LFS pointer"):
        read_catalogue(path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "met.csv"
    path.write_text("Object ID,Title\n1,Plate\n")
    with pytest.raises(BadCatalogue, match=r"Object Number, Is Public Domain.*Culture"):
        read_catalogue(path)


def candidates(numbers: range, label: str = "French", kind: str = "Ceramics") -> list[Candidate]:
    return [Candidate(number, label, "named plainly", kind) for number in numbers]


def test_order_does_not_depend_on_the_order_of_the_catalogue() -> None:
    found = candidates(range(50)) + candidates(range(50, 70), kind="Prints")
    assert in_order(found, 0) == in_order(reversed(found), 0)


def test_order_of_the_known_stays_when_the_catalogue_grows() -> None:
    before = [c.object_id for c in in_order(candidates(range(50)), 0)["French"]]
    after = [c.object_id for c in in_order(candidates(range(80)), 0)["French"]]
    assert [number for number in after if number < 50] == before


def test_another_seed_is_another_order() -> None:
    found = candidates(range(50))
    assert in_order(found, 0) != in_order(found, 1)


def test_order_takes_every_classification_before_a_second_of_any() -> None:
    found = [c for i, kind in enumerate("abcde") for c in candidates(range(100 * i, 100 * i + 10 * (i + 1)), kind=kind)]
    first = in_order(found, 0)["French"][:15]
    assert Counter(candidate.classification for candidate in first) == dict.fromkeys("abcde", 3)
