"""A lying model server: each lie is told from an answer, and answered 502."""

import logging

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.wire import prediction_pb2 as pb
from tests.fakes import LABELS, Behaviour, FaultyModelServer, changed, fail, floats, strings, with_output
from tests.gateway.conftest import picture


def probabilities(*values: float) -> Behaviour:
    return with_output("probabilities", floats(np.array([values], np.float32)))


def with_shape(*sizes: int) -> Behaviour:
    """The good probabilities with another shape than they have."""

    def change(response: pb.PredictResponse) -> None:
        shape = pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes])
        response.outputs["probabilities"].tensor_shape.CopyFrom(shape)

    return changed(change)


def with_dtype(dtype: "pb.DataType.ValueType") -> Behaviour:
    return changed(lambda response: setattr(response.outputs["probabilities"], "dtype", dtype))


LIES: dict[str, Behaviour] = {
    "probabilities missing": changed(lambda response: response.outputs.pop("probabilities")),
    "labels missing": changed(lambda response: response.outputs.pop("labels")),
    "nothing at all": lambda request, context: pb.PredictResponse(),
    "another model": changed(lambda response: setattr(response.model_spec, "name", "weather")),
    "double": with_output(
        "probabilities",
        pb.TensorProto(
            dtype=pb.DT_DOUBLE,
            tensor_shape=pb.TensorShapeProto(dim=[{"size": 1}, {"size": 3}]),  # type: ignore[list-item]
            double_val=[0.2, 0.3, 0.5],
        ),
    ),
    "probabilities as text": with_output("probabilities", strings(["0.2", "0.3", "0.5"], (1, 3))),
    "labels as numbers": with_output("labels", floats(np.array([[1, 2, 3]], np.float32))),
    "unknown dtype": with_dtype(pb.DataType.ValueType(99)),
    "no batch": with_output("probabilities", floats(np.array([0.2, 0.3, 0.5], np.float32))),
    "extra rows": with_output("probabilities", floats(np.full((2, 3), 1 / 3, np.float32))),
    "extra rows of labels": with_output("labels", strings(LABELS * 2, (2, 3))),
    "missing rows": with_output("probabilities", floats(np.zeros((0, 3), np.float32))),
    "fewer probabilities than labels": probabilities(0.4, 0.6),
    "no classes": with_output("labels", strings([], (1, 0))),
    "shape of other size": with_shape(1, 4),
    "negative shape": with_shape(1, -3),
    "huge shape": with_shape(1, 2**62),
    "overflowing shape": with_shape(2**32, 2**32),
    "NaN": probabilities(float("nan"), 0.5, 0.5),
    "infinite": probabilities(float("inf"), 0.5, 0.5),
    "negative": probabilities(-0.5, 0.5, 1.0),
    "above one": probabilities(1.5, 0.0, 0.0),
    "sum is not one": probabilities(0.5, 0.1, 0.1),
    "a label twice": with_output("labels", strings(["red", "red", "blue"], (1, 3))),
    "an empty label": with_output("labels", strings(["red", "", "blue"], (1, 3))),
    "labels no text": with_output(
        "labels",
        pb.TensorProto(
            dtype=pb.DT_STRING,
            tensor_shape=pb.TensorShapeProto(dim=[{"size": 1}, {"size": 3}]),  # type: ignore[list-item]
            string_val=[b"\xff", b"\xfe", b"\xfd"],
        ),
    ),
    "unknown decision": with_output("decision", strings(["perhaps"], (1,))),
    "decision of other shape": with_output("decision", strings(["accepted"], (1, 1))),
    "embedding no direction": with_output("embedding", floats(np.array([[3, 4]], np.float32))),
    "eight megabytes": with_output("mood", floats(np.zeros((1, 2**21), np.float32))),
    "score NaN": with_output("ood_score", floats(np.array([np.nan], np.float32))),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_answered_502_and_logged_loudly(
    http: FlaskClient, server: FaultyModelServer, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    server.script(LIES[lie])
    answer = http.post("/v1/predict", data=picture())
    assert (answer.status_code, answer.get_json()["type"]) == (502, "/problems/broken-contract"), answer.get_json()
    assert any(record.levelno == logging.ERROR and "contract" in record.message for record in caplog.records)


def test_one_value_in_float_val_stands_for_all(http: FlaskClient, server: FaultyModelServer) -> None:
    shape = pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in (1, 3)])
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape, float_val=[1 / 3])
    server.script(with_output("probabilities", tensor))
    (prediction,) = http.post("/v1/predict", data=picture()).get_json()["predictions"]
    assert prediction["probability"] == pytest.approx(1 / 3, abs=1e-5)


def test_unknown_outputs_are_ignored(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(with_output("mood", pb.TensorProto(dtype=pb.DataType.ValueType(99))))
    assert http.post("/v1/predict", data=picture()).status_code == 200


# What each gRPC status means to whoever sent the picture.
STATUS = dict.fromkeys(grpc.StatusCode, 502) | {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.NOT_FOUND: 503,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_has_its_answer(http: FlaskClient, server: FaultyModelServer, code: grpc.StatusCode) -> None:
    server.behaviour = fail(code, "a secret of the model server")
    answer = http.post("/v1/predict", data=picture())
    assert answer.status_code == STATUS[code]
    assert "secret" not in answer.text
