"""The index: made once, gone on with after a kill, replaced whole; and the published one belongs to the release."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.index import ArtObject, BadIndex, Index, top
from serving.reference import Reference
from training import durable
from training.index import Embedded, embed_rows, publish
from training.manifest import read_manifest

ROOT = Path(__file__).parents[2]
FACTS: dict[str, Any] = {"model_name": "culture", "model_version": 3, "release_sha256": "ab" * 32}


class Colours:
    """Embeds a picture as its mean colour, of unit length, and remembers how many pictures it was asked about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.asked += len(images)
        means = images.mean((1, 2), dtype=np.float32) + 1
        embeddings: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return embeddings


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A red, a green and a blue picture, and one that is broken."""
    rows = []
    for i, (name, colour) in enumerate({"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}.items()):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{name}.png")
        rows.append(
            {"file": f"{name}.png", "title": name.title(), "object_id": str(i), "culture": "Greek", "link": f"u/{i}"}
        )
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows.insert(1, {"file": "broken.png", "title": "Broken"})
    path = tmp_path / "metadata.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "title", "object_id", "culture", "link"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[durable.Ledger]:
    with durable.Ledger(tmp_path / "ledger.jsonl") as opened:
        yield opened


def build(manifest: Path, ledger: durable.Ledger, out: Path, embed: Colours) -> Index:
    embedded = Embedded(ledger)
    found = list(embed_rows(list(read_manifest(manifest, source="The Museum")), embed, embedded, quiet=True))
    publish(found, embedded, out / "3", **FACTS)
    return Index(out / "3")


def test_an_object_is_found_by_a_picture_like_its_own(manifest: Path, ledger: durable.Ledger, tmp_path: Path) -> None:
    index = build(manifest, ledger, tmp_path, Colours())
    best, second, _ = index.nearest(np.array([0.1, 0.2, 0.97], np.float32), 3)
    assert best.object == ArtObject(title="Blue", object_id="2", culture="Greek", source="The Museum", url="u/2")
    assert second.object.title == "Green"
    assert 1 > best.similarity > second.similarity


def test_unreadable_pictures_are_left_out(manifest: Path, ledger: durable.Ledger, tmp_path: Path) -> None:
    assert build(manifest, ledger, tmp_path, Colours()).facts.objects == 3


def test_a_second_run_embeds_nothing_again_and_makes_the_same_version(
    manifest: Path, ledger: durable.Ledger, tmp_path: Path
) -> None:
    first, again = Colours(), Colours()
    before = build(manifest, ledger, tmp_path, first)
    with durable.Ledger(tmp_path / "ledger.jsonl") as reopened:
        after = build(manifest, reopened, tmp_path, again)
    assert (first.asked, again.asked) == (3, 0)
    assert before.facts == after.facts


def test_a_run_killed_in_the_middle_goes_on(manifest: Path, tmp_path: Path) -> None:
    """The ledger's last line is cut off, as a kill leaves it: only what that line held is embedded again."""
    path = tmp_path / "ledger.jsonl"
    rows = list(read_manifest(manifest))
    for row in (rows[0], rows[2]):
        with durable.Ledger(path) as ledger:
            list(embed_rows([row], Colours(), Embedded(ledger), quiet=True))
    path.write_bytes(path.read_bytes()[:-10])
    again = Colours()
    with durable.Ledger(path) as ledger:
        build(manifest, ledger, tmp_path, again)
    assert again.asked == 2


def test_a_new_index_takes_the_place_of_the_old_one(manifest: Path, ledger: durable.Ledger, tmp_path: Path) -> None:
    old = build(manifest, ledger, tmp_path, Colours())
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    new = build(manifest, ledger, tmp_path, Colours())
    assert (old.facts.objects, new.facts.objects) == (3, 2)
    assert old.facts.version != new.facts.version
    assert old.nearest(np.array([0, 0, 1], np.float32), 1)[0].object.title == "Blue"  # who has it open keeps it


def test_no_picture_of_a_manifest_comes_into_the_index(manifest: Path, ledger: durable.Ledger, tmp_path: Path) -> None:
    build(manifest, ledger, tmp_path, Colours())
    assert {path.name for path in (tmp_path / "3").iterdir()} == {"index.json", "embeddings.npy", "objects.jsonl"}
    assert b".png" not in (tmp_path / "3/objects.jsonl").read_bytes()


def test_a_manifest_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("title\nA\n")
    with pytest.raises(ValueError, match="no column `file`"):
        list(read_manifest(tmp_path / "m.csv"))


@pytest.mark.parametrize("name", ["index.json", "embeddings.npy", "objects.jsonl"])
def test_an_index_with_a_broken_file_is_refused(
    manifest: Path, ledger: durable.Ledger, tmp_path: Path, name: str
) -> None:
    build(manifest, ledger, tmp_path, Colours())
    data = (tmp_path / "3" / name).read_bytes()
    (tmp_path / "3" / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadIndex):
        Index(tmp_path / "3")


def test_search_is_exact() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(10_000, np.float32)
    np.testing.assert_array_equal(top(values, 25), np.argsort(-values, kind="stable")[:25])
    np.testing.assert_array_equal(top(np.zeros(9, np.float32), 3), [0, 1, 2])
    assert len(top(values[:2], 25)) == 2


def test_the_published_index_belongs_to_the_released_model() -> None:
    release = json.loads((ROOT / "training/release/release.json").read_text())
    index = Index(ROOT / "training/release/index" / str(release["version"]))
    assert index.facts.release_sha256 == release["sha256"], "make it again: python -m training index (see the README)"


def test_the_published_index_holds_nothing_but_the_mets_own_cc0_objects() -> None:
    for folder in (ROOT / "training/release/index").glob("[0-9]*"):
        index = Index(folder)
        objects = [index.object(i) for i in range(index.facts.objects)]
        assert all(each.licence.startswith("CC0") and "Metropolitan" in each.source for each in objects)


def test_the_published_reference_belongs_to_the_released_model() -> None:
    release = json.loads((ROOT / "training/release/release.json").read_text())
    reference = Reference.load(ROOT / "training/release/reference.json")
    assert reference.release_sha256 == release["sha256"], "make it again: python -m training reference (see the README)"
    assert set(reference.cultures) == set(release["labels"])
