"""Versions and models: what is loaded, when, and that nobody who asks meanwhile notices."""

import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server.config import Batching, LoadPolicy, ModelConfig
from serving.server.engine import Arrays, Servable, Signature
from serving.server.metrics import Metrics
from serving.server.models import Models
from tests.serving.running import Client, failure, one_model, request, running, wait_until
from tests.serving.zoo import add_warmup, publish

pytestmark = pytest.mark.training

X = np.ones((1, 2), np.float32)
Write = Callable[[str, str], Path]


class Nothing:
    """Loaded in no time."""

    signatures: Mapping[str, Signature] = {}
    signature_def_map: Any = None

    def widths(self, signature: str) -> tuple[bool, ...]:
        return (False,)

    def run(self, signature: str, inputs: Arrays, *, narrow: bool = False) -> Arrays:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to free."""


class NothingEngine:
    """Takes any directory."""

    name = precision = "none"

    def load(self, path: Path) -> Servable:
        return Nothing()


def config(base_path: Path, rest: str) -> str:
    """A ModelServerConfig for the model `zoo`."""
    return f'model_config_list {{ config {{ name: "zoo" base_path: "{base_path}" {rest} }} }}'


def version_of(client: Client, **spec: object) -> tuple[int, float]:
    """Which version answers, by its own word and by its numbers."""
    reply = client.prediction.Predict(request({"x": X}, **spec), timeout=20)
    bias = np.frombuffer(reply.outputs["y"].tensor_content, np.float32)[0] - 2
    return reply.model_spec.version.value, float(bias)


def test_two_versions_serve_side_by_side_by_number_and_by_label(base_path: Path, zoo_of_two: Path, file: Write) -> None:
    publish(zoo_of_two, base_path, 2)
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    both = "model_version_policy { specific { versions: 1 versions: 2 } }"
    with running([f"--model_config_file={file('models.config', config(base_path, both + labels))}"]) as client:
        wait_until(lambda: client.states() == {1: "AVAILABLE", 2: "AVAILABLE"}, "both are AVAILABLE")
        asked = [{"version": 1}, {"version": 2}, {"label": "stable"}, {"label": "canary"}, {}]
        assert [version_of(client, **spec) for spec in asked] == [(1, 1), (2, 2), (1, 1), (2, 2), (2, 2)]
        assert list(client.versions(label="stable")) == [1]
        assert client.get_json("/v1/models/zoo/labels/canary")["model_version_status"][0]["version"] == "2"


def test_the_latest_policy_serves_the_newest_n(base_path: Path, zoo: Path, file: Write) -> None:
    for number in (2, 10):
        publish(zoo, base_path, number)
    policy = "model_version_policy { latest { num_versions: 2 } }"
    with running([f"--model_config_file={file('models.config', config(base_path, policy))}"]) as client:
        wait_until(lambda: client.states() == {2: "AVAILABLE", 10: "AVAILABLE"}, "2 and 10 are AVAILABLE")


def test_the_all_policy_serves_all_and_drops_what_is_deleted(base_path: Path, zoo: Path, file: Write) -> None:
    publish(zoo, base_path, 2)
    with running(
        [f"--model_config_file={file('models.config', config(base_path, 'model_version_policy { all {} }'))}"]
    ) as client:
        wait_until(lambda: client.states() == {1: "AVAILABLE", 2: "AVAILABLE"}, "both are AVAILABLE")
        shutil.rmtree(base_path / "1")
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "1 is gone")
        assert client.refused({"x": X}, version=1)[0] == "NOT_FOUND"


def test_a_new_version_is_picked_up_while_requests_run_and_none_fails(base_path: Path, zoo_of_two: Path) -> None:
    stop = threading.Event()

    def ask(client: Client) -> list[tuple[int, float]]:
        answers = []
        while not stop.is_set():
            answers.append(version_of(client))
        return answers

    with running(one_model(base_path)) as client, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(ask, client) for _ in range(8)]
        try:
            publish(zoo_of_two, base_path, 2)
            wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 2 has replaced version 1")
        finally:
            stop.set()
        answers = [answer for caller in callers for answer in caller.result()]
        assert set(answers) == {(1, 1.0), (2, 2.0)}


def test_an_old_version_is_unloaded_only_after_its_last_request(base_path: Path, zoo_of_two: Path) -> None:
    with running(one_model(base_path)) as client:
        client.predict({"seconds": np.float32([0])}, "busy")
        last = client.begin({"seconds": np.float32([1.5])}, "busy")
        publish(zoo_of_two, base_path, 2)
        wait_until(lambda: client.states() == {1: "UNLOADING", 2: "AVAILABLE"}, "version 1 waits for its last request")
        assert not last.done()
        assert last.result().model_spec.version.value == 1
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 1 is gone")


def test_an_old_version_outlives_a_caller_who_has_gone_while_it_runs(base_path: Path, zoo_of_two: Path) -> None:
    with running(one_model(base_path)) as client:
        client.predict({"seconds": np.float32([0])}, "busy")
        gone = client.begin({"seconds": np.float32([1.5])}, "busy")
        publish(zoo_of_two, base_path, 2)
        wait_until(lambda: client.states().get(2) == "LOADING", "version 2 is LOADING")
        gone.cancel()
        wait_until(lambda: client.states() == {1: "UNLOADING", 2: "AVAILABLE"}, "version 1 waits for its run to end")
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 1 is gone")
        assert version_of(client) == (2, 2.0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda version: (version / "saved_model.pb").unlink(), "no saved_model.pb"),
        (lambda version: (version / "saved_model.pb").write_bytes(b"not a model"), "saved_model.pb"),
        (lambda version: shutil.rmtree(version / "variables"), "variables"),
    ],
    ids=["empty", "garbage", "without variables"],
)
def test_a_broken_version_is_reported_and_does_not_take_the_good_one_down(
    base_path: Path, zoo_of_two: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    with running(one_model(base_path)) as client:
        copy = tmp_path / "copy"
        shutil.copytree(zoo_of_two, copy)
        damage(copy)
        publish(copy, base_path, 2)
        wait_until(lambda: client.states() == {1: "AVAILABLE", 2: "END"}, "version 2 has failed")
        status = client.versions()[2].status
        assert status.error_code != 0
        assert words in status.error_message
        assert client.refused({"x": X}, version=2)[0] == "NOT_FOUND"
        assert version_of(client) == (1, 1.0)
        assert client.health() == "SERVING"


def test_the_version_before_a_broken_one_is_served_after_a_restart_too(base_path: Path) -> None:
    (base_path / "2").mkdir()
    with running(one_model(base_path)) as client:
        assert client.states() == {1: "AVAILABLE", 2: "END"}
        assert version_of(client) == (1, 1.0)


def test_the_version_before_a_broken_one_is_served_without_polling_too(base_path: Path) -> None:
    (base_path / "2").mkdir()
    with running(one_model(base_path, "--file_system_poll_wait_seconds=0")) as client:
        assert client.states() == {1: "AVAILABLE", 2: "END"}
        assert version_of(client) == (1, 1.0)


def test_without_polling_a_new_version_is_not_seen_but_a_broken_one_is_mended(
    base_path: Path, zoo: Path, zoo_of_two: Path
) -> None:
    (base_path / "2").mkdir()
    with running(one_model(base_path, "--file_system_poll_wait_seconds=0")) as client:
        publish(zoo, base_path, 3)
        shutil.copytree(zoo_of_two, base_path / "2", dirs_exist_ok=True)
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 2 has replaced version 1")


def test_a_broken_version_is_loaded_once_its_files_are_mended(base_path: Path, zoo_of_two: Path) -> None:
    with running(one_model(base_path)) as client:
        half = publish(zoo_of_two, base_path, 2)
        shutil.rmtree(half)
        half.mkdir()
        wait_until(lambda: client.states().get(2) in ("END", "AVAILABLE"), "version 2 was seen")
        shutil.copytree(zoo_of_two, half, dirs_exist_ok=True)
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 2 has replaced version 1")


def test_a_failed_load_is_tried_again_a_limited_number_of_times(base_path: Path, zoo: Path) -> None:
    (base_path / "2").mkdir()
    again = ["--max_num_load_retries=2", "--load_retry_interval_micros=20000", "--num_load_threads=2"]
    monitoring = base_path.parent / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    with running(one_model(base_path, f"--monitoring_config_file={monitoring}", *again)) as client:
        attempts = ":tensorflow:cc:saved_model:load_attempt_count"
        wait_until(lambda: client.metric(attempts, status="fail") == 3, "three tries")
        publish(zoo, base_path, 3)
        wait_until(lambda: client.states().get(3) == "AVAILABLE", "a good version comes after all")
        assert client.metric(attempts, status="fail") == 3


def test_a_version_that_was_good_has_all_its_tries_when_it_comes_back(base_path: Path, zoo: Path, file: Write) -> None:
    monitoring = file("monitoring.config", "prometheus_config { enable: true }")
    again = ["--max_num_load_retries=1", "--load_retry_interval_micros=20000"]
    with running(one_model(base_path, f"--monitoring_config_file={monitoring}", *again)) as client:
        second = publish(zoo, base_path, 2)
        wait_until(lambda: client.states() == {1: "END", 2: "AVAILABLE"}, "version 2 has replaced version 1")
        (base_path / "1/saved_model.pb").unlink()
        shutil.rmtree(second)
        failed = ":tensorflow:cc:saved_model:load_attempt_count"
        wait_until(lambda: client.metric(failed, status="fail") == 2, "one try, and one more", 5)


def test_a_failed_load_is_tried_again_at_its_own_pace_however_seldom_the_disk_is_looked_at(
    base_path: Path, file: Write
) -> None:
    (base_path / "2").mkdir()
    monitoring = file("monitoring.config", "prometheus_config { enable: true }")
    again = ["--max_num_load_retries=2", "--load_retry_interval_micros=200000", "--file_system_poll_wait_seconds=3600"]
    with running(one_model(base_path, f"--monitoring_config_file={monitoring}", *again)) as client:
        assert version_of(client) == (1, 1.0)
        failed = ":tensorflow:cc:saved_model:load_attempt_count"
        wait_until(lambda: client.metric(failed, status="fail") == 3, "three tries", 5)


def test_directories_whose_name_is_no_version_are_ignored(base_path: Path) -> None:
    for name in ("tmp-9", "007", "-3", "1.5", ".2", "٣", "99999999999999999999"):
        (base_path / name).mkdir()
    (base_path / "8").write_text("a file")
    with running(one_model(base_path)) as client:
        assert client.states() == {1: "AVAILABLE"}


def test_a_link_in_a_circle_does_not_hide_the_versions_beside_it(base_path: Path) -> None:
    (base_path / "9").symlink_to("9")
    with running(one_model(base_path)) as client:
        assert client.states() == {1: "AVAILABLE"}


def test_whoever_asks_while_versions_follow_each_other_finds_one(tmp_path: Path) -> None:
    """Threads change places as often as they can, so that a version goes between two looks at it."""
    base_path, spec, end = tmp_path / "zoo", ModelSpec(name="zoo"), threading.Event()
    (base_path / "1").mkdir(parents=True)
    models = Models(
        [ModelConfig("zoo", base_path)], NothingEngine(),
        policy=LoadPolicy(poll_s=0.001), batching=Batching(), metrics=Metrics(), on_change=lambda: None,
    )  # fmt: skip

    def ask() -> int:
        count = 0
        while not end.is_set():
            with models.using(spec):
                count += 1
        return count

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    models.start()
    try:
        wait_until(lambda: models.is_ready("zoo"), "version 1 is AVAILABLE")
        with ThreadPoolExecutor(2) as pool:
            callers = [pool.submit(ask) for _ in range(2)]
            try:
                for number in range(2, 200):
                    (base_path / str(number)).mkdir()
                    wait_until(lambda number=number: models.statuses(spec)[0].version == number, "it is seen")
            finally:
                end.set()  # the pool waits for them
            assert all(caller.result() for caller in callers)
    finally:
        sys.setswitchinterval(interval)
        models.close()


def test_a_folder_that_vanishes_leaves_the_loaded_version_alone(base_path: Path) -> None:
    with running(one_model(base_path)) as client:
        base_path.rename(base_path.with_name("elsewhere"))
        threading.Event().wait(0.2)  # several polls
        assert client.states() == {1: "AVAILABLE"}
        assert version_of(client) == (1, 1.0)


def test_several_models_are_served_under_their_own_names(base_path: Path, zoo_of_two: Path, file: Write) -> None:
    publish(zoo_of_two, base_path.with_name("other"), 5)
    models = f'config {{ name: "zoo" base_path: "{base_path}" }} config {{ name: "other" base_path: "other" }}'
    with running([f"--model_config_file={file('models.config', f'model_config_list {{ {models} }}')}"]) as client:
        assert [version_of(client, name=name) for name in ("zoo", "other")] == [(1, 1.0), (5, 2.0)]
        assert [client.states(name) for name in ("zoo", "other")] == [{1: "AVAILABLE"}, {5: "AVAILABLE"}]


def test_health_follows_each_model(base_path: Path, zoo: Path, file: Write) -> None:
    late = base_path.with_name("late")
    models = f'config {{ name: "zoo" base_path: "{base_path}" }} config {{ name: "late" base_path: "{late}" }}'
    argv = [f"--model_config_file={file('models.config', f'model_config_list {{ {models} }}')}"]
    with running(argv, until_available=False) as client:
        wait_until(lambda: client.health("model/zoo") == "SERVING", "zoo is SERVING")
        assert client.health("model/late") == "NOT_SERVING"
        assert client.health() == client.health("tensorflow.serving.PredictionService") == "NOT_SERVING"
        assert client.health("unknown") == "NOT_FOUND"
        publish(zoo, late, 1)
        wait_until(lambda: client.health() == "SERVING", "the server is SERVING")
        assert client.health("tensorflow.serving.ModelService") == "SERVING"


def test_health_watch_tells_when_the_model_becomes_available(tmp_path: Path, zoo: Path) -> None:
    with running(one_model(tmp_path / "zoo"), until_available=False) as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        publish(zoo, tmp_path / "zoo", 1)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_before_there_is_a_version_status_and_predict_are_not_found(tmp_path: Path) -> None:
    with running(one_model(tmp_path / "nowhere"), until_available=False) as client:
        assert failure(client.versions) == ("NOT_FOUND", "could not find any versions of model 'zoo'")
        assert client.refused({"x": X})[0] == "NOT_FOUND"


def test_a_model_that_is_still_loading_is_unavailable(base_path: Path) -> None:
    add_warmup(base_path / "1", [request({"seconds": np.float32([1.0])}, "busy")])
    with running(one_model(base_path), until_available=False) as client:
        wait_until(lambda: client.states() == {1: "LOADING"}, "version 1 is LOADING")
        assert client.refused({"x": X}) == ("UNAVAILABLE", "model 'zoo' is still loading")
        assert client.health() == "NOT_SERVING"
        wait_until(lambda: client.states() == {1: "AVAILABLE"}, "version 1 is AVAILABLE")
