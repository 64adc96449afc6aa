"""What callers see when something breaks inside, or when they send rubbish: a status, never an inner detail."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from serving.server.engine import Arrays, Servable, Signature, Spec
from tests.serving.running import Client, request, running, wait_until

pytestmark = pytest.mark.training

ROW = np.ones((1, 2), np.float32)
FLOATS = Spec(1, (None, 2))


class BrokenServable:
    """Loads and then fails in a way that nobody foresaw."""

    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", {"x": FLOATS}, {"y": FLOATS}, {})
    }
    signature_def_map: Any = SignatureDefMap()

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        raise RuntimeError("the password is tulip")

    def close(self) -> None:
        """Nothing to free."""


class BrokenEngine:
    """An engine of which the server knows no more than its protocol."""

    name = "broken"
    precision = "none"

    def load(self, path: Path) -> Servable:
        return BrokenServable()


def test_an_unforeseen_failure_is_internal_and_tells_nothing(base_path: Path) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}"], engine=BrokenEngine()) as client:
        assert client.refused({"x": ROW}) == ("INTERNAL", "the model failed; the server's log says why")
        assert client.health() == "SERVING"


def test_the_runner_survives_an_unforeseen_failure(base_path: Path) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}"], engine=BrokenEngine()) as client:
        assert [client.refused({"x": ROW})[0] for _ in range(5)] == ["INTERNAL"] * 5


def test_bytes_that_are_no_message_are_refused_and_the_server_goes_on(server: Client) -> None:
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"\xff" * 64, timeout=10)
    assert (refused.value.code().name, refused.value.details()) == ("INTERNAL", "these bytes are no PredictRequest")
    assert server.health() == "SERVING"


def test_damaged_requests_never_reach_an_inner_error(server: Client) -> None:
    rng = random.Random(0)
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    good = [
        request({"x": ROW}).SerializeToString(),
        request({"text": [b"abc", b"de"]}, "upper").SerializeToString(),
        request({"x": ROW, "z": ROW}, "pair", output_filter=["sum"]).SerializeToString(),
    ]
    texts = set()
    for _ in range(1500):
        message = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 4)):
            message[rng.randrange(len(message))] = rng.randrange(256)
        try:
            call(bytes(message), timeout=10)
        except grpc.RpcError as error:
            texts.add((error.code().name, error.details()))
    inner = {text for code, text in texts if code in ("INTERNAL", "UNKNOWN")}
    assert inner <= {"these bytes are no PredictRequest"}
    assert {code for code, _ in texts} >= {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    wait_until(lambda: server.metric("whence_server_queue_rows") == 0, "nothing waits")
