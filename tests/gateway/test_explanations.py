"""explain=: evidence beside the answer, only when asked, from a servable that explains itself."""

import hashlib
import io
import threading
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from gateway import explanations
from gateway.explanations import KINDS
from gateway.wire import prediction_pb2 as pb
from serving import images, index
from serving.index import ArtObject
from tests.explaining import LEAST, RELEASE, explaining
from tests.fakes import LABELS, Behaviour, FaultyModelServer, floats, good, strings
from tests.gateway.conftest import BLUE, RED, picture

OBJECTS = (
    ArtObject(
        title="Red vase", artist="R", culture="red", source="The Museum", object_id="1", url="https://example.org/1"
    ),
    ArtObject(title="Green vase", culture="green", object_id="2"),
    ArtObject(title="Blue vase", culture="blue", object_id="3"),
)


@pytest.fixture
def server() -> Any:
    with FaultyModelServer(behaviour=explaining) as server:
        yield server


def write_index(folder: Path, *, model_version: int = 7, release: str = RELEASE, objects: Any = OBJECTS) -> index.Facts:
    """An index of three objects that lie on the axes."""
    target = folder / str(model_version)
    target.mkdir(parents=True, exist_ok=True)
    embeddings = np.eye(3, dtype=np.float32)[: len(objects)]
    return index.write(target, objects, embeddings, model_name="culture", model_version=7, release_sha256=release)


def half_red_half_blue() -> bytes:
    """Red on the left, blue on the right, more red than blue."""
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[:, :128, 0], pixels[:, 128:, 2] = 255, 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def explanation(http: FlaskClient, query: str, data: bytes) -> dict[str, Any]:
    answer = http.post(f"/v1/predict?{query}", data=data)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()["predictions"][0]["explanation"]
    return found


def grey(told: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(b64decode(told["heatmap"]["png"]))))


def test_nothing_is_explained_unless_asked(http: FlaskClient, server: FaultyModelServer) -> None:
    answer = http.post("/v1/predict", data=picture())
    assert "explanation" not in answer.get_json()["predictions"][0]
    assert server.calls[-1].request.model_spec.signature_name == "serving_default"


def test_only_what_was_asked_is_explained(http: FlaskClient) -> None:
    assert set(explanation(http, "explain=heatmap,decision", picture())) == {"heatmap", "decision"}
    assert set(explanation(http, "explain=heatmap&explain=provenance", picture())) == {"heatmap", "provenance"}


def test_the_heat_map_is_the_answered_cultures(http: FlaskClient) -> None:
    told = explanation(http, "explain=heatmap", half_red_half_blue())
    assert told["heatmap"]["culture"] == "red"
    np.testing.assert_array_equal(grey(told), np.where(np.arange(14) < 8, 255, 0) * np.ones((14, 1)))


def test_the_heat_map_of_another_culture_can_be_asked_for(http: FlaskClient) -> None:
    told = explanation(http, "explain=heatmap&culture=blue", half_red_half_blue())
    assert told["heatmap"]["culture"] == "blue"
    np.testing.assert_array_equal(grey(told), np.where(np.arange(14) < 8, 0, 255) * np.ones((14, 1)))


def test_the_heat_map_can_be_scaled_back_to_shares(http: FlaskClient) -> None:
    told = explanation(http, "explain=heatmap", half_red_half_blue())["heatmap"]
    assert told["lowest"] == pytest.approx(0, abs=1e-6)
    assert told["highest"] == pytest.approx(1 / 196, abs=1e-6)


def test_the_heat_maps_of_all_cultures_come_likeliest_first(http: FlaskClient) -> None:
    told = explanation(http, "explain=heatmaps", half_red_half_blue())["heatmaps"]
    alone = [
        explanation(http, f"explain=heatmap&culture={each['culture']}", half_red_half_blue())["heatmap"]
        for each in told
    ]
    assert told == alone
    assert [each["culture"] for each in told][:2] == ["red", "blue"]
    assert len(told) == len(LABELS)


def test_a_flat_map_is_black(http: FlaskClient) -> None:
    assert not grey(explanation(http, "explain=heatmap", picture(RED, "PNG"))).any()


def test_the_overlay_is_the_upright_picture_under_the_map(http: FlaskClient) -> None:
    sideways = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned by a quarter
    Image.new("RGB", (60, 40), RED).save(sideways, "JPEG", exif=exif)
    answer = http.post("/v1/predict?explain=heatmap", data=sideways.getvalue(), headers={"Accept": "image/png"})
    assert answer.mimetype == "image/png"
    overlay = Image.open(io.BytesIO(answer.data))
    assert overlay.size == (40, 60)
    assert "red" in overlay.info["Description"]


def test_the_overlay_colours_what_the_model_looked_at_and_leaves_the_rest(http: FlaskClient) -> None:
    answer = http.post(
        "/v1/predict?explain=heatmap&culture=blue", data=half_red_half_blue(), headers={"Accept": "image/png"}
    )
    pixels = np.asarray(Image.open(io.BytesIO(answer.data))).astype(int)
    assert abs(pixels[100, 20] - (255, 0, 0)).max() < 10
    assert pixels[100, 210, 1] > 100  # blue under yellow


def test_whoever_wants_png_without_a_heat_map_gets_json(http: FlaskClient) -> None:
    assert http.post("/v1/predict", data=picture(), headers={"Accept": "image/png"}).mimetype == "application/json"


def test_an_overlay_is_of_one_picture(http: FlaskClient, server: FaultyModelServer) -> None:
    files = {"file": [(io.BytesIO(picture()), "a.jpg"), (io.BytesIO(picture()), "b.jpg")]}
    answer = http.post("/v1/predict?explain=heatmap", data=files, headers={"Accept": "image/png"})
    assert answer.status_code == 400
    assert not server.calls


def scan() -> bytes:
    """A TIFF that no browser draws: CMYK, 1,600 x 800 as stored, to be turned by a quarter; dark at its upright top."""
    file = io.BytesIO()
    stored = Image.new("CMYK", (1600, 800), (0, 0, 0, 0))
    stored.paste((0, 0, 0, 230), (0, 0, 400, 800))
    stored.save(file, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6})
    return file.getvalue()


def test_a_preview_is_the_upright_picture_as_a_small_jpeg(http: FlaskClient, server: FaultyModelServer) -> None:
    told = explanation(http, "explain=preview,decision", scan())["preview"]
    small = Image.open(io.BytesIO(b64decode(told["jpeg"])))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (320, 640))
    assert (told["width"], told["height"]) == small.size
    pixels = np.asarray(small).astype(int)
    assert pixels[:150].max() < 60
    assert pixels[170:].min() > 240
    assert server.calls[-1].request.model_spec.signature_name == "serving_default"  # the model need explain nothing


def test_evidence_is_made_inside_the_limits(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real preview is made before a second request could come: the one put in its place waits for that."""
    app = make_app(max_in_flight=1, max_waiting=0)
    drawing, go_on = threading.Event(), threading.Event()

    def preview(picture: images.Picture) -> str:
        drawing.set()
        assert go_on.wait(10)
        return ""

    monkeypatch.setattr(explanations, "preview", preview)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(app.test_client().post, "/v1/predict?explain=preview", data=picture())
        assert drawing.wait(10)
        assert app.test_client().post("/v1/predict", data=picture()).status_code == 503
        go_on.set()
        assert first.result().status_code == 200


@pytest.mark.parametrize(
    "query",
    ["explain=everything", "explain=heatmap&culture=Etruscan", "culture=red", "k=3", "explain=neighbours&k=0",
     "explain=neighbours&k=51", "explain=neighbours&k=x"],
)  # fmt: skip
def test_a_wish_that_cannot_be_is_a_bad_request(http: FlaskClient, query: str) -> None:
    answer = http.post(f"/v1/predict?{query}", data=picture())
    assert (answer.status_code, answer.get_json()["type"]) == (400, "/problems/bad-request")


def test_each_picture_of_a_batch_has_its_own_explanation(http: FlaskClient) -> None:
    files = {
        "file": [(io.BytesIO(half_red_half_blue()), "a"), (io.BytesIO(b"no"), "b"), (io.BytesIO(picture(BLUE)), "c")]
    }
    first, broken, last = http.post("/v1/predict?explain=heatmap", data=files).get_json()["predictions"]
    assert [first["explanation"]["heatmap"]["culture"], last["explanation"]["heatmap"]["culture"]] == ["red", "blue"]
    assert "explanation" not in broken


def test_neighbours_are_the_most_similar_objects_first(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    facts = write_index(tmp_path)
    told = explanation(make_app(index=str(tmp_path)).test_client(), "explain=neighbours&k=2", half_red_half_blue())
    red, blue = told["neighbours"]["objects"]
    assert (red["title"], red["object_id"], red["url"]) == ("Red vase", "1", "https://example.org/1")
    assert blue["title"] == "Blue vase"
    assert 1 > red["similarity"] > blue["similarity"] > 0
    assert told["neighbours"]["index"]["version"] == facts.version


def test_an_index_of_another_model_gives_no_objects_but_a_notice(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    write_index(tmp_path, release="cd" * 32)
    told = explanation(make_app(index=str(tmp_path)).test_client(), "explain=neighbours", picture())["neighbours"]
    assert told["objects"] == []
    assert "another model" in told["notice"]


@pytest.mark.parametrize("version", [None, 6])
def test_no_index_for_the_version_gives_no_objects_but_a_notice(
    make_app: Callable[..., Flask], tmp_path: Path, version: int | None
) -> None:
    if version:
        write_index(tmp_path, model_version=version)
    told = explanation(make_app(index=str(tmp_path)).test_client(), "explain=neighbours", picture())["neighbours"]
    assert (told["index"], told["objects"]) == (None, [])
    assert "version 7" in told["notice"]


def test_an_index_that_is_replaced_answers_without_a_restart(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    write_index(tmp_path / "a")
    http = make_app(index=str(tmp_path / "a")).test_client()
    before = explanation(http, "explain=neighbours", picture())["neighbours"]
    facts = write_index(tmp_path / "b", objects=OBJECTS[:1])
    (tmp_path / "a" / "7").rename(tmp_path / "old")
    (tmp_path / "b" / "7").rename(tmp_path / "a" / "7")
    after = explanation(http, "explain=neighbours", picture())["neighbours"]
    assert (len(before["objects"]), len(after["objects"])) == (3, 1)
    assert after["index"]["version"] == facts.version


def test_the_decision_comes_with_its_reason_and_thresholds(http: FlaskClient, server: FaultyModelServer) -> None:
    told = explanation(http, "explain=decision", picture((90, 80, 85)))["decision"]
    assert "less than the 0.50" in told["reason"]
    assert told["thresholds"]["least_probability"] == LEAST
    assert server.calls[-1].request.model_spec.signature_name == "serving_default"


def test_a_servable_without_thresholds_has_a_reason_too(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(good)
    assert "no thresholds" in explanation(http, "explain=decision", picture())["decision"]["reason"]


def test_provenance_names_picture_pixels_and_release(http: FlaskClient) -> None:
    data = picture()
    told = explanation(http, "explain=provenance", data)["provenance"]
    assert told["picture_sha256"] == hashlib.sha256(data).hexdigest()
    assert told["pixels_sha256"] == hashlib.sha256(images.decode(data).tobytes()).hexdigest()
    assert told["model"] == {"name": "culture", "version": 7, "release_sha256": RELEASE}


def test_an_explained_prediction_is_what_the_document_says(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    write_index(tmp_path)
    http = make_app(index=str(tmp_path)).test_client()
    schema = {
        "$ref": "#/components/schemas/Predictions",
        "components": http.get("/openapi.json").get_json()["components"],
    }
    query = f"explain={','.join(KINDS)}"
    jsonschema.validate(http.post(f"/v1/predict?{query}", data=picture()).get_json(), schema)


def repeated(*shape: int) -> pb.TensorProto:
    """Ones, of which only one is sent."""
    dims = [pb.TensorShapeProto.Dim(size=size) for size in shape]
    return pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=pb.TensorShapeProto(dim=dims), float_val=[1])


def lie(name: str, tensor: Any) -> Behaviour:
    """What explains itself, but for one output."""

    def behave(request: Any, context: Any) -> Any:
        response = explaining(request, context)
        response.outputs.pop(name, None)
        if tensor is not None:
            response.outputs[name].CopyFrom(tensor)
        return response

    return behave


LIES = {
    "no embedding": lie("embedding", None),
    "no heat maps": lie("heatmaps", None),
    "an embedding that is no direction": lie("embedding", floats(np.array([[3, 4, 0]], np.float32))),
    "an embedding of NaN": lie("embedding", floats(np.array([[np.nan, 1, 0]], np.float32))),
    "maps of other classes": lie("heatmaps", floats(np.zeros((1, 14, 14, 5), np.float32))),
    "maps of NaN": lie("heatmaps", floats(np.full((1, 14, 14, 3), np.nan, np.float32))),
    "maps without a position": lie("heatmaps", floats(np.zeros((1, 0, 14, 3), np.float32))),
    "a provenance that is no JSON": lie("provenance", strings(["{"], (1,))),
    "a provenance that is a list": lie("provenance", strings(["[]"], (1,))),
    "a provenance of NaN": lie("provenance", strings(['{"a": NaN}'], (1,))),
    "a provenance of infinity": lie("provenance", strings(['{"a": 1e999}'], (1,))),
    "a provenance of half a character": lie("provenance", strings([r'{"a": "\ud800"}'], (1,))),
    "a provenance without an end": lie("provenance", strings(["[" * 100_000], (1,))),
    "an embedding of one number, a million million times": lie("embedding", repeated(1, 10**12)),
    "thresholds of three": lie("thresholds", floats(np.zeros((1, 3), np.float32))),
}


@pytest.mark.parametrize("told", LIES)
def test_a_lie_about_evidence_is_answered_502(http: FlaskClient, server: FaultyModelServer, told: str) -> None:
    server.script(LIES[told])
    answer = http.post("/v1/predict?explain=heatmap", data=picture())
    assert (answer.status_code, answer.get_json()["type"]) == (502, "/problems/broken-contract"), answer.text
