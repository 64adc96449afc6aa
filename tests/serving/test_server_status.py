"""What the server tells about itself: status, metadata, reflection, REST, metrics."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import get_model_status_pb2

from serving.server import flags
from serving.server.config import ConfigError
from serving.server.server import Server
from serving.server.tensorflow_engine import TensorFlowEngine
from tests.serving.running import Client, failure, free_port, running, wait_until
from tests.serving.zoo import publish

pytestmark = pytest.mark.training

X = np.ones((3, 2), np.float32)
FLOAT, STRING = 1, 7  # tensorflow.DataType


def test_status_tells_state_and_ok(server: Client) -> None:
    status = server.versions()[1]
    assert (status.state, status.status.error_code, status.status.error_message) == (30, 0, "")


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"name": ""}, "INVALID_ARGUMENT", "no name"),
        ({"name": "louvre"}, "NOT_FOUND", "louvre"),
        ({"version": 7}, "NOT_FOUND", "could not find version 7 of model 'zoo'"),
        ({"label": "stable"}, "INVALID_ARGUMENT", "stable"),
    ],
)
def test_status_refuses_a_wrong_address(server: Client, spec: dict[str, object], status: str, words: str) -> None:
    code, text = failure(lambda: server.versions(**spec))
    assert (code, words in text) == (status, True), text


def test_status_carries_engine_and_precision_in_its_trailing_metadata(server: Client) -> None:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "zoo"
    _, call = server.model.GetModelStatus.with_call(asked, timeout=10)
    trailing = dict(call.trailing_metadata())
    assert (trailing["whence-engine"], trailing["whence-precision"]) == ("tensorflow", "float32")


def test_metadata_tells_names_dtypes_and_shapes(server: Client) -> None:
    signatures = server.metadata("signature_def").signature_def
    x = signatures["serving_default"].inputs["x"]
    assert (x.dtype, [dim.size for dim in x.tensor_shape.dim]) == (FLOAT, [-1, 2])
    assert signatures["upper"].outputs["upper"].dtype == STRING


@pytest.mark.parametrize("fields", [(), ("weights",)])
def test_metadata_refuses_any_other_field(server: Client, fields: tuple[str, ...]) -> None:
    code, text = failure(lambda: server.metadata(*fields))
    assert (code, "expected 'signature_def'" in text) == ("INVALID_ARGUMENT", True)


def test_metadata_of_an_unknown_model_is_not_found(server: Client) -> None:
    assert failure(lambda: server.metadata("signature_def", name="louvre"))[0] == "NOT_FOUND"


def test_reflection_lists_the_services(server: Client) -> None:
    assert set(ProtoReflectionDescriptorDatabase(server.channel).get_services()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    }


@pytest.mark.parametrize("path", ["/v1/models/zoo", "/v1/models/zoo/versions/1", "/v1/models/zoo?x=1"])
def test_rest_answers_status_as_tensorflow_serving_does(server: Client, path: str) -> None:
    ok = {"error_code": "OK", "error_message": ""}
    assert server.get_json(path) == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}]}


def test_rest_answers_metadata_as_tensorflow_serving_does(server: Client) -> None:
    found = server.get_json("/v1/models/zoo/metadata")
    assert found["model_spec"] == {"name": "zoo", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "2"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/louvre", 404),
        ("/v1/models/zoo/versions/7", 404),
        ("/v1/models/zoo/versions/7/metadata", 404),
        ("/v1/models/zoo/labels/stable", 400),
        ("/v1/models/zoo/versions/newest", 404),
        ("/v1/models/zoo/versions/99999999999999999999", 404),
        ("/v1/models/zoo/versions/9223372036854775808", 404),
        ("/v1/models/", 404),
        ("/v1/models/../../etc/passwd", 404),
        ("/", 404),
    ],
)
def test_rest_refuses_a_wrong_address_in_json(server: Client, path: str, status: int) -> None:
    answered, body = server.get(path)
    assert answered == status
    assert set(json.loads(body)) == {"error"}


def test_rest_knows_versions_that_are_named_after_nanoseconds(tmp_path: Path, zoo: Path) -> None:
    publish(zoo, tmp_path / "zoo", 1764026401123456789)
    with running(["--model_name=zoo", f"--model_base_path={tmp_path}/zoo"]) as client:
        (status,) = client.get_json("/v1/models/zoo/versions/1764026401123456789")["model_version_status"]
        assert (status["version"], status["state"]) == ("1764026401123456789", "AVAILABLE")


def test_rest_does_not_predict(server: Client) -> None:
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/zoo:predict"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, data=b'{"instances": []}', timeout=10)
    with refused.value as error:
        assert (error.code, "gRPC only" in error.read().decode()) == (501, True)


@pytest.mark.parametrize("line", [b"PAINT / HTTP/1.1", b"GET /", b"\x16\x03\x01"])
def test_rest_answers_what_it_does_not_understand_in_json(server: Client, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port or 0), timeout=10) as connection:
        connection.sendall(line + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert set(json.loads(answer.rpartition(b"\r\n")[2])) == {"error"}


def test_metrics_are_valid_and_carry_tensorflow_servings_names(server: Client) -> None:
    server.predict({"x": X})
    text = server.get("/monitoring/prometheus/metrics")[1]
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency",
        ":tensorflow:serving:runtime_latency",
        ":tensorflow:serving:batching_session:queuing_latency",
        ":tensorflow:serving:batching_session:input_batch_size",
        ":tensorflow:cc:saved_model:load_attempt_count",
    } <= names


def test_metrics_count_requests_by_status(server: Client) -> None:
    count = ":tensorflow:serving:request_count"
    before = [server.metric(count, model_name="zoo", status=status) for status in ("OK", "INVALID_ARGUMENT")]
    server.predict({"x": X})
    server.refused({"x": X[:, :1]})
    after = [server.metric(count, model_name="zoo", status=status) for status in ("OK", "INVALID_ARGUMENT")]
    assert [a - b for a, b in zip(after, before, strict=True)] == [1, 1]


def test_metrics_count_predictions_only_as_tensorflow_serving_does(server: Client) -> None:
    count = ":tensorflow:serving:request_count"
    before = server.metric(count, model_name="zoo", status="OK")
    server.metadata("signature_def")
    assert server.metric(count, model_name="zoo", status="OK") == before


def test_metrics_count_a_deadline_as_such(server: Client) -> None:
    count = ":tensorflow:serving:request_count"
    before = server.metric(count, status="DEADLINE_EXCEEDED")
    failure(lambda: server.predict({"seconds": np.float32([0.3])}, "busy", timeout_s=0.1))
    wait_until(lambda: server.metric(count, status="DEADLINE_EXCEEDED") == before + 1, "it is counted")


def test_metrics_do_not_take_model_names_from_callers(server: Client) -> None:
    server.refused({"x": X}, name="made up")
    text = server.get("/monitoring/prometheus/metrics")[1]
    assert "made up" not in text
    assert server.metric(":tensorflow:serving:request_count", model_name="unknown", status="NOT_FOUND") >= 1


def test_metrics_tell_engine_precision_and_threads(server: Client) -> None:
    assert server.metric("whence_server_info", engine="tensorflow", precision="float32") == 1


def test_metrics_tell_one_state_for_each_version(server: Client) -> None:
    text = server.get("/monitoring/prometheus/metrics")[1]
    states = [line for line in text.splitlines() if line.startswith("whence_server_version_state{")]
    assert states == ['whence_server_version_state{model_name="zoo",state="AVAILABLE",version="1"} 1.0']


def test_metrics_are_off_without_a_monitoring_file(base_path: object) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}"]) as client:
        assert client.get("/monitoring/prometheus/metrics")[0] == 404


def test_a_message_larger_than_grpcs_default_of_4_mib_is_read(base_path: object) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}"]) as client:
        wide = np.ones((2, 1_000_000), np.float32)
        assert client.predict({"x": X[:2], "z": wide}, "pair")["sum"].tolist() == [1_000_002, 1_000_002]


def test_channel_arguments_reach_the_grpc_server(base_path: object) -> None:
    argv = [
        "--model_name=zoo",
        f"--model_base_path={base_path}",
        "--grpc_channel_arguments=grpc.max_receive_message_length=99",
    ]
    with running(argv) as client:
        assert client.refused({"x": np.ones((99, 2), np.float32)})[0] == "RESOURCE_EXHAUSTED"


def test_a_port_that_is_taken_stops_the_start(server: Client, base_path: object) -> None:
    async def start(port: int, rest_port: int) -> None:
        argv = [f"--model_base_path={base_path}", f"--port={port}", f"--rest_api_port={rest_port}"]
        await Server(flags.parse(argv), TensorFlowEngine(intra_op=1, inter_op=1, precision="float32")).start()

    for port, rest_port, words in [
        (server.port, free_port(), f"--port is {server.port}, expected one that is free"),
        (free_port(), server.rest_port, f"--rest_api_port is {server.rest_port}, expected one that is free"),
    ]:
        with pytest.raises(ConfigError, match=words):
            asyncio.run(start(port, rest_port))


def test_connections_to_an_unknown_method_are_unimplemented(server: Client) -> None:
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Paint")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
