"""Warmup: what is recorded beside a version is run before it is AVAILABLE, in each width, and failing tells why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.server.config import Batching
from serving.server.engine import Arrays
from serving.server.tensorflow_engine import TensorFlowEngine
from serving.server.warmup import warm_up
from serving.server.widths import TwoWidths
from tests.serving.running import one_model, request, running, wait_until
from tests.serving.zoo import add_warmup

pytestmark = pytest.mark.training

X = np.ones((1, 2), np.float32)
Write = Callable[[str, str], Path]


def test_warmup_runs_every_recorded_request_before_available(base_path: Path, file: Write) -> None:
    add_warmup(base_path / "1", [request({"x": X}), request({"text": [b"a"]}, "upper")])
    monitoring = file("monitoring.config", "prometheus_config { enable: true }")
    with running(one_model(base_path, f"--monitoring_config_file={monitoring}")) as client:
        assert client.metric(":tensorflow:serving:model_warmup_latency_count", status="success") == 1


def test_warmup_asks_each_width_once_and_what_has_one_width_once(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servable computes as always; its calls are only written down, because no metric tells widths apart."""
    add_warmup(base_path / "1", [request({"x": X}), request({"text": [b"a"]}, "upper")])
    engine = TensorFlowEngine(intra_op=1, inter_op=1, precision="float32")
    asked = {}
    for name, each in (("one", engine), ("two", TwoWidths(engine, engine))):
        servable, runs = each.load(base_path / "1"), []
        compute = servable.run

        def run(signature: str, inputs: Arrays, *, narrow: bool, compute: Any = compute, runs: Any = runs) -> Arrays:
            runs.append((signature, narrow))
            return compute(signature, inputs, narrow=narrow)

        monkeypatch.setattr(servable, "run", run)
        assert warm_up(base_path / "1", servable, Batching(enabled=True, narrow_runs=2)) == 2
        servable.close()
        asked[name] = runs
    assert asked["one"] == [("serving_default", False), ("upper", False)]
    assert asked["two"] == [(name, narrow) for name in ("serving_default", "upper") for narrow in (False, True)]


def test_a_version_whose_warmup_fails_is_not_served(base_path: Path) -> None:
    add_warmup(base_path / "1", [request({"x": X}), request({"y": X})])
    with running(one_model(base_path), until_available=False) as client:
        wait_until(lambda: client.states() == {1: "END"}, "version 1 has failed")
        assert "unknown {y}" in client.versions()[1].status.error_message


def test_a_damaged_warmup_file_is_reported(base_path: Path) -> None:
    add_warmup(base_path / "1", [request({"x": X})] * 2)
    records = base_path / "1/assets.extra/tf_serving_warmup_requests"
    records.write_bytes(records.read_bytes()[:-3])
    with running(one_model(base_path), until_available=False) as client:
        wait_until(lambda: client.states() == {1: "END"}, "version 1 has failed")
        assert "record 2 is damaged" in client.versions()[1].status.error_message


def test_more_than_1000_warmup_records_are_refused(base_path: Path) -> None:
    add_warmup(base_path / "1", [request({"x": X})] * 1001)
    with running(one_model(base_path), until_available=False) as client:
        wait_until(lambda: client.states() == {1: "END"}, "version 1 has failed")
        assert "more than 1000 records" in client.versions()[1].status.error_message
