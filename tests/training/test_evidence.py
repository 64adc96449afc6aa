"""What evidence is worth: retrieval, decisions, the reference for drift, and answers that can be given again."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving import contract
from serving.images import decode
from serving.reference import Reference
from training import reference, retrieval
from training.decisions import kind_of, table
from training.strangers import photographs_in

pytest.importorskip("tensorflow")

from training.answers import ReleasedModel
from training.checkpoint import load_release, save_release
from training.reproduce import Check, reproduce

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "training/release"
PICTURES = sorted((ROOT / "tests/images").glob("*.jpg"))[::3]
OUTPUTS = [contract.PROBABILITIES, contract.DECISION, contract.OOD_SCORE, contract.HEATMAPS, contract.EMBEDDING]


def circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


# Two cultures; in each, one artist with two works side by side, and one with a single work nearer to the other culture.
EMBEDDINGS = circle(0, 1, 40, 90, 91, 52)
CULTURES = ["Greek", "Greek", "Greek", "Italian", "Italian", "Italian"]
ARTISTS = ["a", "a", "b", "c", "c", "d"]


def test_retrieval_finds_the_artists_other_work() -> None:
    (score,) = retrieval.evaluate(EMBEDDINGS, CULTURES, ARTISTS, leave_out=False, ks=[1])
    assert score.artist == 1  # of the two artists with several works
    assert score.culture == pytest.approx(4 / 6)  # b and d find each other


def test_retrieval_without_the_artists_own_works_is_harder() -> None:
    (score,) = retrieval.evaluate(EMBEDDINGS, CULTURES, ARTISTS, leave_out=True, ks=[1])
    assert score.artist is None
    assert score.culture == pytest.approx(4 / 6)  # a finds b, c finds d; b and d still find each other


def test_retrieval_lets_the_nearest_decide_between_equals() -> None:
    (score,) = retrieval.evaluate(EMBEDDINGS, CULTURES, ARTISTS, leave_out=False, ks=[2])
    assert score.vote == pytest.approx(4 / 6)


def answers(probabilities: list[list[float]], decisions: list[str]) -> dict[str, NDArray[Any]]:
    return {
        contract.PROBABILITIES: np.array(probabilities, np.float32),
        contract.DECISION: np.array([decision.encode() for decision in decisions], object),
    }


def test_decisions_are_counted_with_how_often_they_were_right() -> None:
    told = answers([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], ["accepted", "accepted", "abstained"])
    kind = kind_of("new artists", told, ["Greek", "Italian"], ["Greek", "Italian", "Greek"])
    assert table([kind]).splitlines()[-1] == "| new artists | 3 | 67% (50%) | 33% (100%) | 0% |"


def test_decisions_about_strangers_are_never_right() -> None:
    kind = kind_of("noise", answers([[0.9, 0.1]], ["out_of_distribution"]), ["Greek", "Italian"], None)
    assert table([kind]).splitlines()[-1] == "| noise | 1 | 0% | 0% | 100% |"


def test_photographs_of_a_folder_are_made_as_the_gateway_makes_them(tmp_path: Path) -> None:
    (tmp_path / "holidays").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "holidays/beach.JPG").write_bytes(PICTURES[0].read_bytes())
    (found,) = photographs_in(tmp_path)
    assert np.array_equal(found, decode(PICTURES[0].read_bytes()))


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        photographs_in(tmp_path)


def test_a_broken_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(PICTURES[0].read_bytes()[:999])
    with pytest.raises(ValueError, match=r"torn\.jpg"):
        photographs_in(tmp_path)


def unit(rng: np.random.Generator, count: int, towards: NDArray[np.float32]) -> NDArray[np.float32]:
    values = rng.normal(size=(count, len(towards))).astype(np.float32) + towards
    found: NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def test_the_reference_tells_known_pictures_from_others(tmp_path: Path) -> None:
    rng, axes = np.random.default_rng(0), 2 * np.eye(8, dtype=np.float32)
    known = unit(rng, 500, axes[0])
    told = answers([[0.7, 0.3]] * 500, ["accepted"] * 400 + ["abstained"] * 100)
    made = reference.make(told, known, ("Greek", "Italian"), model_version=1, sha256="ab" * 32, about="drawn")
    made.save(tmp_path / "reference.json")
    made = Reference.load(tmp_path / "reference.json")
    centroid = np.array(made.centroid)
    assert made.decisions == {"accepted": 0.8, "abstained": 0.2, "out_of_distribution": 0.0}
    assert made.cultures == {"Greek": 1.0, "Italian": 0.0}
    assert np.linalg.norm(unit(rng, made.window, axes[0]).mean(0) - centroid) < made.centroid_limit
    assert np.linalg.norm(unit(rng, made.window, axes[1]).mean(0) - centroid) > made.centroid_limit


@pytest.fixture(scope="module")
def released() -> ReleasedModel:
    return ReleasedModel(RELEASE, OUTPUTS)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.stack([decode(path.read_bytes()) for path in PICTURES])


@pytest.fixture(scope="module")
def found(released: ReleasedModel, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    return released.ask(pixels)


def ranks(values: NDArray[Any]) -> NDArray[Any]:
    return np.argsort(np.argsort(values.ravel()))


def test_released_heat_maps_sum_to_the_logits_behind_the_probabilities(
    released: ReleasedModel, found: dict[str, NDArray[Any]]
) -> None:
    expected = released.release.calibration.probabilities(found[contract.HEATMAPS].sum((1, 2)))
    np.testing.assert_allclose(found[contract.PROBABILITIES], expected, atol=1e-4)


def test_released_heat_maps_change_when_the_heads_weights_are_randomised(
    tmp_path: Path, pixels: NDArray[np.uint8], found: dict[str, NDArray[Any]]
) -> None:
    """The sanity check of Adebayo et al. 2018: a map that does not follow the weights would explain nothing."""
    release, rng = load_release(RELEASE), np.random.default_rng(0)
    weights = dict(release.weights)
    weights["head/kernel"] = rng.permutation(weights["head/kernel"])
    save_release(replace(release, weights=weights), tmp_path)
    randomised = ReleasedModel(tmp_path, OUTPUTS).ask(pixels)
    for maps, others, told in zip(
        found[contract.HEATMAPS], randomised[contract.HEATMAPS], found[contract.PROBABILITIES].argmax(1), strict=True
    ):
        assert abs(np.corrcoef(ranks(maps[..., told]), ranks(others[..., told]))[0, 1]) < 0.6


@pytest.fixture
def answer(released: ReleasedModel, found: dict[str, NDArray[Any]], pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """What the gateway answers about the first picture, with provenance and heat map."""
    labels, probabilities = released.release.labels, found[contract.PROBABILITIES][0]
    culture = labels[int(probabilities.argmax())]
    shares = found[contract.HEATMAPS][0, ..., labels.index(culture)]
    provenance = {
        "picture_sha256": hashlib.sha256(PICTURES[0].read_bytes()).hexdigest(),
        "pixels_sha256": hashlib.sha256(pixels[0].tobytes()).hexdigest(),
        "software": {"pillow": "12.0.0"},
        "model": {"name": "culture", "version": released.release.version, "release_sha256": released.sha256},
    }
    heatmap = {"culture": culture, "lowest": float(shares.min()), "highest": float(shares.max())}
    prediction = {
        "culture": culture,
        "decision": found[contract.DECISION][0].decode(),
        "top": [{"culture": c, "probability": float(p)} for c, p in zip(labels, probabilities, strict=True)],
        "explanation": {"provenance": provenance, "heatmap": heatmap},
    }
    return {"predictions": [prediction]}


def differing(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if not check.same]


def test_an_answer_is_given_again(released: ReleasedModel, answer: dict[str, Any]) -> None:
    checks = list(reproduce(answer, PICTURES[0].read_bytes(), released))
    assert differing(checks) == []
    assert {"picture", "pixels", "release", "probabilities", "culture", "decision", "heat map"} == {
        c.what for c in checks
    }


def forge(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda answer: change(answer["predictions"][0])


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "release": forge(lambda p: p["explanation"]["provenance"]["model"].update(release_sha256="0" * 64)),
    "pixels": forge(lambda p: p["explanation"]["provenance"].update(pixels_sha256="0" * 64)),
    "probabilities": forge(lambda p: p["top"][0].update(probability=p["top"][0]["probability"] + 0.1)),
    "culture": forge(lambda p: p.update(culture="Etruscan")),
    "decision": forge(lambda p: p.update(decision="perhaps")),
    "heat map": forge(lambda p: p["explanation"]["heatmap"].update(highest=99.0)),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_changed_answer_is_found_out(released: ReleasedModel, answer: dict[str, Any], what: str) -> None:
    FORGERIES[what](answer)
    assert differing(list(reproduce(answer, PICTURES[0].read_bytes(), released))) == [what]


def test_another_picture_is_found_out(released: ReleasedModel, answer: dict[str, Any]) -> None:
    assert "picture" in differing(list(reproduce(answer, PICTURES[1].read_bytes(), released)))


def test_an_answer_without_provenance_cannot_be_given_again(released: ReleasedModel) -> None:
    with pytest.raises(ValueError, match="explain=provenance"):
        list(reproduce({"predictions": [{"culture": "Greek"}]}, b"", released))
