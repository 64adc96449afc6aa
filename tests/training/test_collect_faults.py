"""`python -m training collect`: what the museum may do to us."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.training.collecting import command, pictures, reasons, rows, saved
from tests.training.fake_met import FIREWALL_PAGE, FakeMet, Fault, picture_of
from training.__main__ import main


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
