"""`python -m training collect` against a server that behaves like the Met's: what a good run leaves."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from serving.images import decode
from serving.index import ArtObject
from tests.training.collecting import command, rows, saved
from tests.training.fake_met import FakeMet, picture_of
from training.__main__ import main
from training.cultures import LABELS
from training.manifest import read_manifest
from training.met import LICENCE
from training.records import read_records

OURS = (
    "file", "culture", "source_repo", "source_path", "object_id", "title", "licence", "notes", "artist", "object_type",
)  # fmt: skip


def test_collect_saves_a_picture_of_every_culture_with_its_metadata(met: FakeMet, tmp_path: Path) -> None:
    names = ("British, London", "China", "French", "German, Meissen", "Greek, Attic", "Italian", "Japan", "Spanish")
    for number, culture in enumerate(names, start=1):
        met.add(number, culture, artistDisplayName="Maker, the Elder", title="Plate,\n with a  castle")
    assert main(command(met, tmp_path / "out")) == 0
    found = rows(tmp_path / "out")
    assert [row["culture"] for row in found] == list(LABELS)
    first = found[0]
    assert tuple(first)[: len(OURS)] == OURS
    assert first["title"] == "Plate, with a castle"
    assert first["artist"] == "Maker, the Elder"
    assert first["accession_number"] == "19.1"
    assert first["licence"].startswith("CC0")
    assert first["image_url"] == met.address + met.picture_path(1)
    assert first["museum_culture"] == "British, London"


def test_collect_keeps_pictures_as_they_came_and_notes_their_digest(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    main(command(met, tmp_path / "out"))
    (row,) = rows(tmp_path / "out")
    data = (tmp_path / "out" / row["file"]).read_bytes()
    assert data == met.files[met.picture_path(1)]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert decode(data).shape == (224, 224, 3)


def test_prepare_reads_what_collect_wrote(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, "Greek, Attic", artistDisplayName="The Berlin Painter")
    met.add(2, "Spanish", artistDisplayName="Unknown", accessionNumber="56.171.2a, b")
    main(command(met, tmp_path / "out"))
    greek, spanish = read_records(tmp_path / "out")
    assert (greek.culture, greek.group, greek.object_type) == ("Greek", "artist The Berlin Painter", "Ceramics")
    assert (spanish.culture, spanish.group) == ("Spanish", "object 56.171.2")


def test_index_reads_what_collect_wrote(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, "Greek, Attic", artistDisplayName="The Berlin Painter")
    main(command(met, tmp_path / "out"))
    (row,) = read_manifest(tmp_path / "out/metadata.csv")
    assert decode(row.picture.read_bytes()).any()
    assert row.object == ArtObject(
        title="Plate 1", artist="The Berlin Painter", date="ca. 1550", culture="Greek", object_id="1", licence=LICENCE,
        source="The Metropolitan Museum of Art", url="https://www.metmuseum.org/art/collection/search/1",
    )  # fmt: skip


def test_collect_names_itself_and_a_contact_in_every_request(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    main(command(met, tmp_path / "out"))
    assert {request.user_agent for request in met.requests} == {"whence-collect/1 (+tests@example.org)"}


def test_collect_refuses_to_ask_without_a_contact(
    met: FakeMet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    met.add(1)
    assert main([part for part in command(met, tmp_path / "out") if "contact" not in part]) == 1
    assert "--contact" in capsys.readouterr().err
    assert not met.requests


@pytest.mark.parametrize("option", ["rate", "per-culture", "workers", "attempts"])
def test_collect_refuses_a_number_that_makes_no_sense(
    met: FakeMet, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main([*command(met, tmp_path / "out"), f"--{option}=0"]) == 1
    assert "more than nothing" in capsys.readouterr().err


def test_collect_stops_at_the_cap_and_asks_for_no_more_than_it_needs(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 31):
        met.add(number, "French" if number % 3 else "Spanish")
    main(command(met, tmp_path / "out", per_culture=4))
    assert Counter(row["culture"] for row in rows(tmp_path / "out")) == {"French": 4, "Spanish": 4}
    assert len(met.requests) == 16


def test_collect_takes_turns_between_classifications(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 41):
        met.add(number, "Japan", classification="Prints" if number > 4 else "Ceramics")
    main(command(met, tmp_path / "out", per_culture=8))
    assert Counter(row["object_type"] for row in rows(tmp_path / "out")) == {"Prints": 4, "Ceramics": 4}


def test_collect_gives_the_same_metadata_with_any_number_of_threads(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 25):
        met.add(number, "French" if number % 2 else "Greek", picture_of(number % 9))
    for name, workers in (("one", 1), ("many", 16)):
        main(command(met, tmp_path / name, workers=workers, per_culture=5))
    assert (tmp_path / "one/metadata.csv").read_bytes() == (tmp_path / "many/metadata.csv").read_bytes()


def test_collect_asks_with_several_threads_at_once(met: FakeMet, tmp_path: Path) -> None:
    met.delay_s = 0.05
    for number in range(1, 13):
        met.add(number)
    main(command(met, tmp_path / "out", workers=6))
    assert met.busiest >= 4


def test_collect_keeps_to_the_rate(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 11):
        met.add(number)
    main(command(met, tmp_path / "out", rate=30))
    assert len(met.requests) == 20
    assert met.requests[-1].at - met.requests[0].at >= (20 - 5 - 1) / 30 * 0.95  # five at once, then 30 a second


def test_collect_takes_the_makers_nationality_only_when_told(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, "", artistNationality="Spanish", artistDisplayName="Francisco de Zurbarán")
    met.add(2, "", artistNationality="Spanish", artistPrefix="Copy after", artistDisplayName="Velázquez")
    main(command(met, tmp_path / "without"))
    main([*command(met, tmp_path / "with"), "--nationality"])
    assert (saved(tmp_path / "without"), saved(tmp_path / "with")) == (set(), {1})


def test_collect_fetches_a_catalogue_by_url_once(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    for _ in range(2):
        assert main(command(met, tmp_path / "out", objects_csv=f"{met.address}/MetObjects.csv")) == 0
    assert met.count("/MetObjects.csv") == 1
    assert saved(tmp_path / "out") == {1}


def test_dry_run_asks_for_nothing_and_lists_every_culture_string(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, "Italian, Venice")
    met.add(2, "China or Japan")
    assert main([*command(met, tmp_path / "out"), "--dry-run"]) == 0
    assert not met.requests
    with (tmp_path / "out/cultures.csv").open(newline="") as file:
        listed = {row["culture"]: (row["label"], row["rule"]) for row in csv.DictReader(file)}
    assert listed == {"Italian, Venice": ("Italian", "named with a place"), "China or Japan": ("", "two cultures")}


def test_print_rules_shows_every_label_and_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--print-rules"]) == 0
    text = capsys.readouterr().out
    assert all(label in text for label in LABELS)
    assert "hilt, German; blade, Italian" in text


def test_collect_refuses_a_folder_in_which_another_run_works(
    met: FakeMet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.durable import locked

    met.add(1)
    with locked(tmp_path / "out"):
        assert main(command(met, tmp_path / "out")) == 1
    assert "another process" in capsys.readouterr().err
