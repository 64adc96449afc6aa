"""`python -m training collect` against a server that behaves, and misbehaves, like the Met's."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from serving.images import decode
from serving.index import ArtObject
from tests.training.fake_met import FIREWALL_PAGE, FakeMet, Fault, picture_of
from training.__main__ import main
from training.cultures import LABELS
from training.manifest import read_manifest
from training.met import LICENCE
from training.records import read_records

OURS = (
    "file", "culture", "source_repo", "source_path", "object_id", "title", "licence", "notes", "artist", "object_type",
)  # fmt: skip


@pytest.fixture
def met() -> Iterator[FakeMet]:
    with FakeMet() as server:
        yield server


def command(met: FakeMet, out: Path, **options: Any) -> list[str]:
    """The arguments of a fast run: waits of hundredths of a second rather than seconds."""
    objects_csv = met.write_csv(out.parent / "MetObjects.csv")
    settings = {"objects_csv": objects_csv, "out": out, "api": met.api, "per_culture": 100,
                "contact": "tests@example.org", "rate": 2000, "backoff": 0.01, "timeout": 1} | options  # fmt: skip
    return ["collect", *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def saved(out: Path) -> set[int]:
    return {int(row["object_id"]) for row in rows(out)}


def reasons(out: Path, outcome: str) -> dict[str, int]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return dict(report["objects"][outcome])


def pictures(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in (out / "images").rglob("*") if path.is_file()}


# What a good run leaves


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


# What the museum may do to us


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, b"", {"Retry-After": "0"}),
        Fault(500, b"oops"),
        Fault(503, b"<html>maintenance</html>"),
        Fault(403, FIREWALL_PAGE),
        Fault(200, FIREWALL_PAGE),
        Fault(200, b'{"objectID": 1, "isPub'),
        Fault(200, b"[]"),
        Fault(200, b'{"objectID": 2, "isPublicDomain": true}'),
        Fault(cut_short=True),
        Fault(delay_s=1.3),
    ],
    ids=["429", "500", "503", "firewall 403", "firewall 200", "half JSON", "list", "other object", "cut short", "slow"],
)
@pytest.mark.parametrize("what", ["object", "picture"])
def test_collect_asks_again_after(met: FakeMet, tmp_path: Path, what: str, fault: Fault) -> None:
    met.add(1)
    path = met.object_path(1) if what == "object" else met.picture_path(1)
    met.faults[path] = [fault]
    assert main(command(met, tmp_path / "out")) == 0
    assert saved(tmp_path / "out") == {1}
    assert met.count(path) == 2


def test_collect_waits_the_seconds_that_retry_after_says(met: FakeMet, tmp_path: Path) -> None:
    assert pause_after(met, tmp_path, "1") >= 1.0


def test_collect_waits_until_the_date_that_retry_after_says(met: FakeMet, tmp_path: Path) -> None:
    until = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    pause_after(met, tmp_path, format_datetime(until, usegmt=True))
    assert datetime.now(UTC) >= until


def pause_after(met: FakeMet, tmp_path: Path, retry_after: str) -> float:
    """Seconds between a 429 and the next request, whatever that asks for: the pause is for all, not for one object."""
    met.add(1)
    met.add(2)
    met.faults[met.object_path(1)] = [Fault(429, b"", {"Retry-After": retry_after})]
    main(command(met, tmp_path / "out", workers=1))
    assert saved(tmp_path / "out") == {1, 2}
    refused = next(place for place, request in enumerate(met.requests) if request.path == met.object_path(1))
    return met.requests[refused + 1].at - met.requests[refused].at


def test_collect_ends_when_told_to_come_back_much_later(
    met: FakeMet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    met.add(1)
    met.always[met.object_path(1)] = Fault(429, b"", {"Retry-After": "86400"})
    assert main(command(met, tmp_path / "out")) == 1
    assert "again in 86400 s" in capsys.readouterr().err
    assert len(met.requests) == 1


def test_collect_ends_when_the_server_is_down_and_goes_on_another_day(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 61):
        met.add(number)
    met.down = True
    assert main(command(met, tmp_path / "out", attempts=2)) == 1
    assert len(met.requests) < 2 * 60
    met.down = False
    assert main(command(met, tmp_path / "out")) == 0
    assert len(saved(tmp_path / "out")) == 60


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"isPublicDomain": False}, "not in the public domain"),
        ({"primaryImage": "", "primaryImageSmall": ""}, "no picture"),
        ({"primaryImage": "", "primaryImageSmall": "file:///etc/passwd"}, "picture: not a URL of the web"),
        ({"culture": "Swiss"}, "the culture has changed since the catalogue"),
    ],
)
def test_collect_drops_what_the_api_no_longer_offers(
    met: FakeMet, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    met.add(1)
    met.answers[1] |= fields
    assert main(command(met, tmp_path / "out")) == 0
    assert reasons(tmp_path / "out", "dropped") == {reason: 1}
    assert rows(tmp_path / "out") == []


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
def test_collect_drops_an_object_that_is_gone_after_one_request(met: FakeMet, tmp_path: Path, gone: int) -> None:
    for number in range(1, 5):
        met.add(number)
    del met.answers[gone]
    for _ in range(2):
        assert main(command(met, tmp_path / "out", workers=1)) == 0
    assert reasons(tmp_path / "out", "dropped") == {"HTTP 404": 1}
    assert met.count(met.object_path(gone)) == 1


def test_collect_drops_an_object_whose_picture_is_gone(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    met.add(2)
    del met.files[met.picture_path(1)], met.files[met.picture_path(1, original=True)]
    main(command(met, tmp_path / "out"))
    assert reasons(tmp_path / "out", "dropped") == {"picture: HTTP 404": 1}


def test_collect_doubts_the_address_where_nothing_is_found(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    wrong = f"{met.address}/public/collection/v2"
    assert main(command(met, tmp_path / "out", api=wrong)) == 0
    assert reasons(tmp_path / "out", "absent") == {"HTTP 404": 1}
    assert main(command(met, tmp_path / "out")) == 0
    assert saved(tmp_path / "out") == {1}


def test_collect_ends_at_a_wrong_address_and_goes_on_at_the_right_one(
    met: FakeMet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 101):
        met.add(number)
    wrong = f"{met.address}/public/collection/v2"
    assert main(command(met, tmp_path / "out", api=wrong)) == 1
    assert f"in a row failed at {wrong}, the last with: HTTP 404" in capsys.readouterr().err
    assert len(met.requests) < 60
    assert reasons(tmp_path / "out", "dropped") == {}
    assert main(command(met, tmp_path / "out")) == 0
    assert len(saved(tmp_path / "out")) == 100


@pytest.mark.parametrize("status", [401, 403, 407])
@pytest.mark.parametrize("what", ["object", "picture"])
def test_collect_ends_when_it_is_turned_away_and_goes_on_another_day(
    met: FakeMet, tmp_path: Path, what: str, status: int
) -> None:
    for number in range(1, 61):
        met.add(number)
        refused = (met.object_path(number),) if what == "object" else (
            met.picture_path(number), met.picture_path(number, original=True))  # fmt: skip
        met.always |= dict.fromkeys(refused, Fault(status, b"<html>go away</html>"))
    assert main(command(met, tmp_path / "out")) == 1
    assert {path: met.count(path) for path in met.always if met.count(path) > 1} == {}
    assert reasons(tmp_path / "out", "dropped") == {}
    met.always.clear()
    assert main(command(met, tmp_path / "out")) == 0
    assert len(saved(tmp_path / "out")) == 60


def test_collect_asks_again_for_the_one_object_that_it_was_turned_away_from(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    met.add(2)
    met.faults[met.object_path(1)] = [Fault(403, b"")]
    assert main(command(met, tmp_path / "out")) == 0
    assert reasons(tmp_path / "out", "failed") == {"HTTP 403": 1}
    assert main(command(met, tmp_path / "out")) == 0
    assert saved(tmp_path / "out") == {1, 2}


def test_collect_drops_an_answer_that_is_too_large(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    met.always[met.object_path(1)] = Fault(200, b" " * 3_000_000)
    main(command(met, tmp_path / "out"))
    assert reasons(tmp_path / "out", "dropped") == {"larger than 2 MB": 1}


def test_collect_drops_a_picture_that_is_too_small(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, picture=picture_of(1, width=200, height=60))
    main(command(met, tmp_path / "out"))
    assert reasons(tmp_path / "out", "dropped") == {"picture: smaller than 96 pixels": 1}


def test_collect_takes_the_original_where_the_small_picture_is_missing(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    del met.files[met.picture_path(1)]
    main(command(met, tmp_path / "out"))
    assert [row["image_url"] for row in rows(tmp_path / "out")] == [met.address + met.picture_path(1, original=True)]


def test_collect_fetches_a_picture_whose_name_has_blanks(met: FakeMet, tmp_path: Path) -> None:
    met.add(1)
    path = "/CRDImages/es/web-large/Temple of Solomon é.jpg"
    met.files[path] = picture_of(1)
    met.answers[1]["primaryImageSmall"] = met.address + path
    main(command(met, tmp_path / "out"))
    assert [row["source_path"] for row in rows(tmp_path / "out")] == [path.lstrip("/")]


@pytest.mark.parametrize("broken", [picture_of(1)[:-900], b"GIF89a" + b"\0" * 50, b"no picture at all", b""])
def test_collect_keeps_no_picture_that_cannot_be_decoded(met: FakeMet, tmp_path: Path, broken: bytes) -> None:
    met.add(1, picture=broken)
    met.add(2)
    assert main(command(met, tmp_path / "out", attempts=2)) == 0
    assert saved(tmp_path / "out") == {2}
    assert pictures(tmp_path / "out") == {"images/Italian/met_2.jpg"}
    assert sum(reasons(tmp_path / "out", "failed").values()) == 1


def test_collect_replaces_what_it_drops_by_the_next_object(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 13):
        met.add(number)
        if number % 2:
            met.answers[number]["primaryImage"] = met.answers[number]["primaryImageSmall"] = ""
    main(command(met, tmp_path / "out", per_culture=5))
    assert len(saved(tmp_path / "out")) == 5


def test_collect_counts_one_picture_of_several_objects_once(met: FakeMet, tmp_path: Path) -> None:
    for number in range(1, 9):
        met.add(number, picture=picture_of(0 if number < 5 else number))
    main(command(met, tmp_path / "out", per_culture=5))
    assert len({row["sha256"] for row in rows(tmp_path / "out")}) == len(rows(tmp_path / "out")) == 5


def test_collect_leaves_out_a_picture_under_two_cultures(met: FakeMet, tmp_path: Path) -> None:
    met.add(1, "French", picture_of(0))
    met.add(2, "Italian", picture_of(0))
    met.add(3, "Italian")
    main(command(met, tmp_path / "out"))
    assert saved(tmp_path / "out") == {3}


# Ends and beginnings


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
