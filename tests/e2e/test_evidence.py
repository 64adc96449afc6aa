"""Evidence from the released model, through HTTP: maps that point at what matters, objects, answers given again."""

import csv
import io
import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.images import decode
from tests.system import PICTURES, ROOT

SIDE = 16  # pixels of a position of the heat map
COVERED = 5  # positions, each side, of a region that is covered: an eighth of the picture
SHARED = ROOT.parent / "shared/data/artworks"
EVERYTHING = {"explain": "heatmap,neighbours,decision,provenance", "k": 3}


def ask(client: httpx.Client, data: bytes, **query: Any) -> dict[str, Any]:
    reply = client.post("/v1/predict", params=query, content=data, headers={"Content-Type": "image/png"})
    assert reply.status_code == 200, reply.text
    prediction: dict[str, Any] = reply.json()["predictions"][0]
    return prediction


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def covered(pixels: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    """The picture with one region in its own mean colour."""
    changed = pixels.copy()
    rows, columns = (slice(at * SIDE, (at + COVERED) * SIDE) for at in (row, column))
    changed[rows, columns] = pixels.reshape(-1, 3).mean(0)
    return changed


def hottest_counts_more(client: httpx.Client, pixels: NDArray[np.uint8]) -> bool:
    """Whether covering the hottest region lowers the answered culture's probability more than covering the coldest."""
    told = ask(client, png(pixels), explain="heatmap")
    heat = np.asarray(Image.open(io.BytesIO(b64decode(told["explanation"]["heatmap"]["png"]))), np.float32)
    regions = np.lib.stride_tricks.sliding_window_view(heat, (COVERED, COVERED)).sum((2, 3))
    hot, cold = (np.unravel_index(place, regions.shape) for place in (regions.argmax(), regions.argmin()))

    def left(place: tuple[np.intp, ...]) -> float:
        answer = ask(client, png(covered(pixels, int(place[0]), int(place[1]))))
        return next(each["probability"] for each in answer["top"] if each["culture"] == told["culture"])

    return left(hot) < left(cold)


def test_covering_what_the_model_looked_at_costs_more_than_covering_the_rest(client: httpx.Client) -> None:
    votes = [hottest_counts_more(client, decode(path.read_bytes())) for path in PICTURES]
    assert sum(votes) > len(votes) / 2, votes


@pytest.mark.skipif(not SHARED.is_dir(), reason="the private pictures are not beside this repository")
def test_covering_costs_more_on_most_validation_pictures_too(client: httpx.Client) -> None:
    with (SHARED / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["culture"] in ("British", "Chinese", "Italian", "Spanish")]
    chosen = rows[:: len(rows) // 24][:24]
    votes = [hottest_counts_more(client, decode((SHARED / row["file"]).read_bytes())) for row in chosen]
    assert sum(votes) > 0.6 * len(votes), votes


@pytest.fixture(scope="module")
def explained(client: httpx.Client) -> dict[Path, dict[str, Any]]:
    found = {}
    for path in PICTURES:
        reply = client.post("/v1/predict", params=EVERYTHING, content=path.read_bytes())
        assert reply.status_code == 200, reply.text
        found[path] = reply.json()
    return found


def test_every_picture_of_the_index_finds_its_own_object_first(explained: dict[Path, dict[str, Any]]) -> None:
    for path, reply in explained.items():
        told = reply["predictions"][0]["explanation"]["neighbours"]
        assert told["objects"], told["notice"]
        nearest = told["objects"][0]
        assert nearest["object_id"] in path.stem
        assert nearest["similarity"] > 0.99


def test_a_third_party_gives_the_answer_again(explained: dict[Path, dict[str, Any]], tmp_path: Path) -> None:
    python, picture = ROOT / ".venv/training/bin/python", PICTURES[0]
    if not python.exists():
        pytest.skip("the training environment is not installed (make test-training)")
    (tmp_path / "answer.json").write_text(json.dumps(explained[picture]))
    release = json.loads((ROOT / "training/release/release.json").read_text())
    index = ROOT / "training/release/index" / str(release["version"])
    command = [python, "-m", "training", "reproduce", tmp_path / "answer.json", picture, "--index", index]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "DIFFERS" not in run.stdout


def test_an_overlay_is_a_picture_of_the_same_shape(client: httpx.Client) -> None:
    query, headers = {"explain": "heatmap"}, {"Accept": "image/png"}
    reply = client.post("/v1/predict", params=query, content=PICTURES[0].read_bytes(), headers=headers)
    with Image.open(io.BytesIO(reply.content)) as overlay, Image.open(PICTURES[0]) as picture:
        assert overlay.width / overlay.height == pytest.approx(picture.width / picture.height, rel=0.01)


def test_feedback_about_an_answer_is_taken(client: httpx.Client, explained: dict[Path, dict[str, Any]]) -> None:
    reply = explained[PICTURES[0]]
    provenance = reply["predictions"][0]["explanation"]["provenance"]
    said = {"request_id": reply["request_id"], "culture": "Dutch", "picture_sha256": provenance["picture_sha256"]}
    answer = client.post("/v1/feedback", json=said, headers={"Idempotency-Key": reply["request_id"]})
    assert answer.status_code == 201, answer.text
