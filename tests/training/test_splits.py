from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from training.records import (
    ARTIST,
    OTHER,
    RANDOM,
    SHOWN,
    SOURCE,
    TOO_CLOSE,
    TRAIN,
    VALIDATION,
    Record,
    accession_group,
    book_of,
)
from training.splits import clusters, digest, leak_report, near_duplicates, perceptual_hashes, split

SHARES = {"random": 0.1, "artist": 0.15, "source": 0.15, "shown": 0.6}


@pytest.fixture
def records() -> list[Record]:
    found = []
    for label in ("A", "B"):
        for i in range(120):
            artist, source = (f"{label}{i % 12}", "site") if i < 60 else ("", f"{label} book {i % 10}")
            found.append(
                Record(
                    f"{label}/{i}.jpg", label, source, artist, width=200 + i, height=200, bytes=9000, cluster=len(found)
                )
            )
    return found


def numbered(records: list[Record]) -> list[Record]:
    """As `prepare` numbers clusters: by position."""
    return [replace(record, cluster=i) for i, record in enumerate(records)]


def test_split_keeps_artists_and_sources_whole(records: list[Record]) -> None:
    parted = split(records, ("A", "B"), seed=1, shares=SHARES)
    for part, key in ((ARTIST, "artist"), (SOURCE, "source")):
        held = {getattr(r, key) for r in parted if r.part == part}
        assert held
        assert not held & {getattr(r, key) for r in parted if r.part == TRAIN}


def test_split_gives_every_class_about_its_share(records: list[Record]) -> None:
    parted = split(records, ("A", "B"), seed=1, shares=SHARES)
    for label in ("A", "B"):
        held = sum(r.part in VALIDATION for r in parted if r.culture == label) / 120
        assert 0.25 < held < 0.7


def test_split_is_the_same_every_time_and_in_any_order(records: list[Record]) -> None:
    first = split(records, ("A", "B"), seed=1, shares=SHARES)
    assert digest(first) == digest(split(numbered(records[::-1]), ("A", "B"), seed=1, shares=SHARES))
    assert digest(first) != digest(split(records, ("A", "B"), seed=2, shares=SHARES))


def test_a_few_more_pictures_move_few_others(records: list[Record]) -> None:
    more = numbered([Record("A/new.jpg", "A", "site"), *records])
    before = {r.file: r.part for r in split(records, ("A", "B"), seed=1, shares=SHARES)}
    after = {r.file: r.part for r in split(more, ("A", "B"), seed=1, shares=SHARES)}
    assert sum(after[file] != part for file, part in before.items()) <= 12  # one more group in each part


def test_strangers_are_shown_by_whole_artists(records: list[Record]) -> None:
    strangers = [record for record in records if record.culture == "B"]
    parted = [r for r in split(records, ("A",), seed=1, shares=SHARES) if r.culture == "B"]
    assert {r.part for r in parted} == {SHOWN, OTHER}
    shown, tried = ({r.artist for r in parted if r.part == part} - {""} for part in (SHOWN, OTHER))
    assert shown
    assert tried
    assert not shown & tried
    assert 0.3 < sum(r.part == SHOWN for r in parted) / len(strangers) < 0.9
    again = split(numbered(records[::-1]), ("A",), seed=1, shares=SHARES)
    assert {r.file: r.part for r in again if r.culture == "B"} == {r.file: r.part for r in parted}


def test_culture_that_is_never_shown_only_tries_what_was_learnt(records: list[Record]) -> None:
    parted = split(records, ("A",), seed=1, shares=SHARES, never_shown=("B",))
    assert {r.part for r in parted if r.culture == "B"} == {OTHER}


def test_what_is_shown_is_no_near_duplicate_of_what_is_tried(records: list[Record]) -> None:
    twins = [replace(record, cluster=i // 2, artist=f"{record.artist}{i}") for i, record in enumerate(records)]
    parts = defaultdict(set)
    for record in split(twins, ("A",), seed=1, shares=SHARES):
        parts[record.cluster].add(record.part)
    assert {SHOWN} in parts.values()
    assert not any(SHOWN in found and len(found) > 1 for found in parts.values())


def test_near_duplicates_never_stand_on_both_sides(records: list[Record]) -> None:
    twins = [replace(record, cluster=i // 2) for i, record in enumerate(records)]
    parts = defaultdict(set)
    for record in split(twins, ("A", "B"), seed=1, shares=SHARES):
        parts[record.cluster].add(record.part)
    assert all(not (TRAIN in found and found & set(VALIDATION)) for found in parts.values())
    assert any(TOO_CLOSE in found for found in parts.values())


def test_pictures_of_one_object_never_stand_on_both_sides(records: list[Record]) -> None:
    pairs = [
        replace(record, artist="", source="museum", accession=f"1975.{i // 2}{'ab'[i % 2]}")
        for i, record in enumerate(records)
    ]
    parts = defaultdict(set)
    for record in split(pairs, ("A", "B"), seed=1, shares=SHARES):
        parts[record.work].add(record.part)
    assert len(parts) == len(records) // 2
    assert all(len(found) == 1 for found in parts.values())
    assert {part for found in parts.values() for part in found} == {TRAIN, RANDOM}


def test_another_picture_of_a_held_object_is_not_trained_on(records: list[Record]) -> None:
    """The museum names the artist on one of two pictures: the artist is held out, the other picture serves nobody."""
    pairs = [replace(r, accession=f"1975.{i % 60}", source="museum") for i, r in enumerate(records[:60])]
    pairs += [replace(r, artist="", cluster=200 + i) for i, r in enumerate(pairs)]
    parted = split(pairs, ("A",), seed=1, shares=SHARES)
    held = {r.work for r in parted if r.part in VALIDATION}
    assert held
    assert not held & {r.work for r in parted if r.part == TRAIN}


def test_near_duplicates_finds_a_copy_and_no_other() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 14, 14, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    copy = (coarse[0] * 0.9 + 10).astype(np.uint8)
    hashes = [perceptual_hashes(picture) for picture in (*coarse, copy)]
    assert near_duplicates(hashes) == [(0, 3)]


def test_clusters_follow_chains() -> None:
    assert clusters(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("number", "group"),
    [
        ("1975.1.23a", "1975.1.23"),
        ("1975.1.23a, b", "1975.1.23"),
        ("29.100.1–5", "29.100.1"),
        ("JP1847", "JP1847"),
        ("62.602.169(1)", "62.602.169"),
        ("62.602.169(2)", "62.602.169"),
        ("1970.301.1(a,b)", "1970.301.1"),
        ("1970.301.1 (a–c)", "1970.301.1"),
        ("1970.301.1a(1)", "1970.301.1"),
        ("(loan)", "(loan)"),
    ],
)
def test_accession_group_is_the_object(number: str, group: str) -> None:
    assert accession_group(number) == group


@pytest.mark.parametrize(
    ("source", "book"),
    [
        ("gutenberg/A-History-of-Spoons-Volume-1--of-4-Revised-edition__1001", "gutenberg/a-history-of-spoons"),
        ("gutenberg/A-history-of-spoons-volume-2-of-4_1002", "gutenberg/a-history-of-spoons"),
        ("gutenberg/Old-Lace-Vol-I-Early-Patterns_2001", "gutenberg/old-lace"),
        ("gutenberg/Old-lace-vol-II-An-account-of-its-makers__2002", "gutenberg/old-lace"),
        ("gutenberg/Les-cuilleres-tome-1-of-2_3001", "gutenberg/les-cuilleres"),
        ("Old Lace, Vol. IV: Late Patterns", "old lace"),
        ("Old Lace, vol.3", "old lace"),
        ("Spitzen (Band 2)", "spitzen"),
        ("Spoons-in-Colour-Series_4001", "spoons-in-colour-series"),
        ("gutenberg/Volumes-of-Lace_5001", "gutenberg/volumes-of-lace"),
        ("gutenberg/Lace-1817-1904-_6001", "gutenberg/lace-1817-1904"),
        ("owner/lace-book-2", "owner/lace-book-2"),
        ("", ""),
    ],
)
def test_volumes_are_one_book(source: str, book: str) -> None:
    assert book_of(source) == book


def test_volumes_of_one_book_never_stand_on_both_sides(records: list[Record]) -> None:
    volumes = [
        replace(r, source=f"{r.culture} book {i % 10 // 2}, vol. {i % 2 + 1}_{i % 10}") if not r.artist else r
        for i, r in enumerate(records)
    ]
    parted = split(volumes, ("A", "B"), seed=1, shares=SHARES)
    held = {r.book for r in parted if r.part == SOURCE}
    assert held
    assert not held & {r.book for r in parted if r.part == TRAIN}
    assert len({r.source for r in parted if r.part == SOURCE}) == 2 * len(held)
    assert len({r.group for r in volumes if not r.artist}) == 10


def test_pictures_of_a_book_that_was_held_out_are_one_group_whoever_made_them(records: list[Record]) -> None:
    one = replace(records[0], source="plates_1", artist="Goya", accession="")
    other = replace(one, artist="")
    assert one.group == "artist Goya"
    assert other.group == "source plates"
    assert {replace(each, part=SOURCE).group for each in (one, other)} == {"source plates"}
    assert replace(one, part=ARTIST).group == "artist Goya"


def test_leak_report_counts_the_pictures_of_known_books(records: list[Record]) -> None:
    pytest.importorskip("sklearn")
    report = leak_report(split(records, ("A", "B"), seed=1, shares=SHARES), ("A", "B"))
    assert (report["artist"]["known_source"], report["source"]["known_source"]) == (1.0, 0.0)


def test_leak_report_sees_that_geometry_gives_a_class_away(records: list[Record]) -> None:
    pytest.importorskip("sklearn")
    told = [replace(r, width=100 if r.culture == "A" else 300) for r in records]
    report = leak_report(split(told, ("A", "B"), seed=1, shares=SHARES), ("A", "B"))
    assert report["random"]["geometry"] == 1.0
