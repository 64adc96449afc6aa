"""Real pictures through the real system: every accepted form, one answer."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.system import PICTURES, ROOT, System, running

CULTURES = ["British", "Chinese", "French", "German", "Greek", "Italian", "Japanese", "Spanish"]
EVERY = {"top_k": 8}


def post_raw(client: httpx.Client, picture: Path) -> dict[str, Any]:
    reply = client.post(
        "/v1/predict", params=EVERY, content=picture.read_bytes(), headers={"Content-Type": "image/jpeg"}
    )
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def probabilities(prediction: dict[str, Any]) -> np.ndarray[Any, Any]:
    by_culture = {each["culture"]: each["probability"] for each in prediction["top"]}
    return np.array([by_culture[culture] for culture in CULTURES])


@pytest.fixture(scope="module")
def raw(client: httpx.Client) -> dict[str, np.ndarray[Any, Any]]:
    return {picture.name: probabilities(post_raw(client, picture)["predictions"][0]) for picture in PICTURES}


def test_there_are_fourteen_pictures() -> None:
    assert len(PICTURES) == 14


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_predict_answers_every_picture_with_the_documented_reply(
    picture: Path, client: httpx.Client, release: dict[str, Any]
) -> None:
    body = post_raw(client, picture)
    assert set(body) == {"request_id", "model", "predictions"}
    assert body["model"] == {"name": "culture", "version": release["version"]}
    (prediction,) = body["predictions"]
    assert sorted(each["culture"] for each in prediction["top"]) == CULTURES
    ranked = [each["probability"] for each in prediction["top"]]
    assert ranked == sorted(ranked, reverse=True)
    assert sum(ranked) == pytest.approx(1, abs=1e-3)
    assert prediction["culture"] == prediction["top"][0]["culture"]
    assert prediction["probability"] == ranked[0]
    assert prediction["decision"] in ("accepted", "abstained", "out_of_distribution")


def test_predict_gives_the_same_answer_in_every_form(
    client: httpx.Client, raw: dict[str, np.ndarray[Any, Any]]
) -> None:
    """Raw body, one multipart file, all files in one multipart batch, and base64 in JSON."""
    uploads = [("file", (each.name, each.read_bytes())) for each in PICTURES]
    single = [client.post("/v1/predict", params=EVERY, files=[upload]).json()["predictions"][0] for upload in uploads]
    batch = client.post("/v1/predict", params=EVERY, files=uploads).json()["predictions"]
    coded = [{"b64": base64.b64encode(each.read_bytes()).decode()} for each in PICTURES]
    texts = client.post("/v1/predict", params=EVERY, json={"images": coded}).json()["predictions"]
    assert [each["filename"] for each in batch] == [each.name for each in PICTURES]
    for answers in (single, batch, texts):
        for picture, answer in zip(PICTURES, answers, strict=True):
            # Another batch size means another order of additions, and in bfloat16 a visible last digit.
            assert np.abs(probabilities(answer) - raw[picture.name]).max() < 0.01


def test_predict_answers_the_calls_of_the_original_project(
    client: httpx.Client, raw: dict[str, np.ndarray[Any, Any]]
) -> None:
    for picture in PICTURES[:3]:
        reply = client.post("/predict/", files={"file": (picture.name, picture.read_bytes(), "image/jpeg")})
        assert reply.json() == {"class_label": CULTURES[int(raw[picture.name].argmax())]}


def checkpoint_probabilities() -> np.ndarray[Any, Any]:
    """The released weights evaluated by Keras itself, without SavedModel, gRPC or HTTP, in float32."""
    program = """
import json, sys
from pathlib import Path
import numpy as np
from serving.images import decode
from training.checkpoint import load_release
from training.checkpoint import build_release_model
release = load_release(Path("training/release"))
pixels = np.stack([decode(Path(name).read_bytes()) for name in sys.argv[1:]])
found = build_release_model(release).predict(pixels, verbose=0)
answers = release.calibration.probabilities(found["logits"])
print(json.dumps(np.asarray(answers).tolist()))
"""
    command = [str(ROOT / ".venv/serving/bin/python"), "-c", program, *map(str, PICTURES)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def expected() -> np.ndarray[Any, Any]:
    return checkpoint_probabilities()


def test_service_equals_the_checkpoint_in_the_default_precision(
    raw: dict[str, np.ndarray[Any, Any]], expected: np.ndarray[Any, Any]
) -> None:
    served = np.stack([raw[picture.name] for picture in PICTURES])
    assert np.abs(served - expected).max() < 0.01
    assert (served.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_service_equals_the_checkpoint_in_float32(expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    with running(tmp_path / "log", "--mixed-precision=none") as system, system.client() as client:
        served = np.stack([probabilities(post_raw(client, picture)["predictions"][0]) for picture in PICTURES])
    assert np.abs(served - expected).max() < 1e-3


def test_page_is_served_at_the_root(system: System) -> None:
    with system.client() as client:
        reply = client.get("/")
    assert reply.status_code == 200
    assert "text/html" in reply.headers["Content-Type"]
