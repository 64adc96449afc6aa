"""Drift: every picture is compared with the release's reference, and nothing of it is kept."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.settings import SettingsError
from serving.reference import Reference, RunningMean
from tests.explaining import RELEASE, explaining
from tests.fakes import FaultyModelServer, good
from tests.gateway.conftest import BLUE, RED, picture

REFERENCE = Reference(
    model_version=7,
    release_sha256=RELEASE,
    about="red pictures",
    pictures=100,
    cultures={"red": 0.9, "blue": 0.1},
    decisions={"accepted": 0.8, "abstained": 0.2},
    confidence=0.95,
    centroid=(0.95, 0.0, 0.0),
    distance=0.05,
    window=4,
    centroid_limit=0.1,
)


@pytest.fixture
def server() -> Iterator[FaultyModelServer]:
    with FaultyModelServer(behaviour=explaining) as server:
        yield server


@pytest.fixture
def http(make_app: Callable[..., Flask], tmp_path: Path) -> FlaskClient:
    """A gateway with a reference."""
    REFERENCE.save(tmp_path / "reference.json")
    return make_app(reference=str(tmp_path / "reference.json")).test_client()


def metric(http: FlaskClient, sample: str) -> float:
    return float(next(line for line in http.get("/metrics").text.splitlines() if line.startswith(sample)).split()[-1])


def ask(http: FlaskClient, *colours: tuple[int, int, int]) -> None:
    for colour in colours:
        assert http.post("/v1/predict", data=picture(colour)).status_code == 200


def test_the_reference_stands_beside_what_is_measured(http: FlaskClient) -> None:
    assert metric(http, 'whence_reference{kind="culture",value="red"}') == 0.9
    assert metric(http, 'whence_reference{kind="decision",value="abstained"}') == 0.2
    assert metric(http, 'whence_reference{kind="centroid_limit",value=""}') == 0.1


def test_known_pictures_are_near_the_centroid(http: FlaskClient) -> None:
    ask(http, RED, RED, RED, RED)
    assert metric(http, "whence_embedding_centroid_distance") < REFERENCE.centroid_limit
    assert metric(http, "whence_embedding_distance_sum") / 4 < 0.05


def test_other_pictures_are_far_from_the_centroid(http: FlaskClient) -> None:
    ask(http, BLUE, BLUE, BLUE, BLUE)
    assert metric(http, "whence_embedding_centroid_distance") > 1
    assert metric(http, "whence_embedding_distance_sum") / 4 > 0.9


def test_a_window_that_is_not_full_says_nothing(http: FlaskClient) -> None:
    ask(http, BLUE, BLUE, BLUE)
    assert metric(http, "whence_embedding_centroid_distance") == 0


def test_another_versions_embeddings_are_passed_over(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    dataclasses.replace(REFERENCE, model_version=6).save(tmp_path / "reference.json")
    http = make_app(reference=str(tmp_path / "reference.json")).test_client()
    ask(http, BLUE)
    assert metric(http, "whence_embedding_distance_count") == 0


def test_a_servable_without_embeddings_is_not_compared(
    make_app: Callable[..., Flask], tmp_path: Path, server: FaultyModelServer
) -> None:
    REFERENCE.save(tmp_path / "reference.json")
    http = make_app(reference=str(tmp_path / "reference.json")).test_client()
    server.behaviour = good
    ask(http, BLUE)
    assert metric(http, "whence_embedding_distance_count") == 0


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", json.dumps(dataclasses.asdict(REFERENCE) | {"confidence": float("nan")})]
)
def test_a_broken_reference_stops_the_start(make_app: Callable[..., Flask], tmp_path: Path, text: str) -> None:
    (tmp_path / "reference.json").write_text(text)
    with pytest.raises(SettingsError, match="WHENCE_REFERENCE"):
        make_app(reference=str(tmp_path / "reference.json"))


def test_the_running_mean_forgets() -> None:
    mean, axes = RunningMean(10, 2), np.eye(2, dtype=np.float32)
    for _ in range(100):
        mean.add(axes[0])
    for _ in range(100):
        mean.add(axes[1])
    assert mean.distance(np.array([0.0, 1.0])) < 0.001
