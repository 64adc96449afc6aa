"""The images: what is in them, and that they run as the manifests say."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import kubelet
from tests.deploy.engine import Docker
from tests.deploy.kubelet import Pod
from tests.deploy.load import CUT_OFF, PICTURE, REFUSED, predicting, until
from tests.k8s.manifests import ROOT, render

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


def _config(docker: Docker, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image).stdout)[0]
    return found


def _inside(docker: Docker, image: str, *command: str) -> "subprocess.CompletedProcess[str]":
    return docker("run", "--rm", "--network", "none", "--entrypoint", "", image, *command, check=False)


def test_the_gateway_image_is_small(docker: Docker, gateway_image: str) -> None:
    assert _config(docker, gateway_image)["Size"] < 250e6


def test_the_same_sources_give_the_same_layers(docker: Docker, gateway_image: str, tmp_path: Path) -> None:
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("gateway", "k8s", "serving", "training"):
        shutil.copytree(ROOT / name, tmp_path / name)
    layers = []
    for _ in range(2):
        for path in tmp_path.rglob("*"):
            path.touch()  # another checkout has other times
        docker.build("whence/gateway:again", "--target", "gateway", "--no-cache", context=tmp_path)
        layers.append(_config(docker, "whence/gateway:again")["RootFS"]["Layers"])
        docker("rmi", "whence/gateway:again")
    assert layers[0] == layers[1]


@pytest.mark.parametrize("image", ["gateway_image", "model_server_image", "serving_image"])
def test_an_image_says_what_it_is_and_runs_as_nobody_in_particular(
    image: str, docker: Docker, request: pytest.FixtureRequest
) -> None:
    config = _config(docker, request.getfixturevalue(image))["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Healthcheck"]["Test"][0] == "CMD"


@pytest.mark.parametrize("module", ["tensorflow", "pip", "setuptools", "training", "pytest"])
def test_the_gateway_image_has_no(module: str, docker: Docker, gateway_image: str) -> None:
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is not None)"
    assert _inside(docker, gateway_image, "python", "-c", look).returncode == 0


def test_no_image_carries_a_compiler_or_an_installer(docker: Docker, model_server_image: str) -> None:
    done = _inside(docker, model_server_image, "sh", "-c", "command -v pip gcc cc make git curl")
    assert done.stdout == ""


def test_the_gateway_says_what_is_wrong_with_a_setting(docker: Docker, gateway_image: str) -> None:
    done = docker("run", "--rm", "--env", "WHENCE_PORT=x", gateway_image, check=False)
    assert done.returncode != 0
    assert "WHENCE_PORT is 'x', expected" in done.stdout + done.stderr


def test_the_sbom_lists_what_is_locked(docker: Docker, tmp_path: Path) -> None:
    docker.build("whence/sbom:test", "--target", "sbom", "--output", str(tmp_path))
    found = json.loads((tmp_path / "gateway.cdx.json").read_text())
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "whence-gateway")
    lock = (ROOT / "gateway/requirements.lock").read_text()
    assert {each["purl"].partition("/")[2].replace("@", "==") for each in found["components"]} <= set(lock.split())


@pytest.fixture(scope="module")
def serving(docker: Docker, model_server_image: str) -> Iterator[Pod]:
    with (
        kubelet.network(docker),
        kubelet.running(docker, render("embedded"), "serving", model_server_image) as found,
    ):
        until("the model server has started", lambda: found.probe("startup"), 120)
        yield found


@pytest.fixture(scope="module")
def gateway(docker: Docker, gateway_image: str, serving: Pod) -> Iterator[Pod]:
    with kubelet.running(docker, render("embedded"), "gateway", gateway_image) as found:
        until("the gateway is ready", lambda: found.probe("readiness"), 60)
        yield found


def _predict(gateway: Pod) -> httpx.Response:
    headers = {"Content-Type": "image/jpeg"}
    return httpx.post(
        f"http://{gateway.address}:8080/v1/predict", content=PICTURE.read_bytes(), headers=headers, timeout=15
    )


@pytest.mark.parametrize("kind", ["startup", "readiness", "liveness"])
def test_a_probe_of_the_model_server_passes(kind: str, serving: Pod) -> None:
    assert serving.probe(kind), serving.log()


@pytest.mark.parametrize("kind", ["startup", "readiness", "liveness"])
def test_a_probe_of_the_gateway_passes(kind: str, gateway: Pod) -> None:
    assert gateway.probe(kind), gateway.log()


def test_the_pods_of_the_manifests_answer_together(gateway: Pod) -> None:
    answer = _predict(gateway)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["culture"]


def test_the_health_checks_of_the_images_pass(docker: Docker, gateway: Pod, serving: Pod) -> None:
    for each in (gateway, serving):
        (config,) = json.loads(docker("inspect", each.name).stdout)
        done = docker("exec", each.name, *config["Config"]["Healthcheck"]["Test"][1:], check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_idle_gateway_is_small(docker: Docker, gateway_image: str, serving: Pod) -> None:
    with kubelet.running(docker, render("embedded"), "gateway", gateway_image, "-idle") as fresh:
        until("the gateway is ready", lambda: fresh.probe("readiness"), 60)
        assert fresh.memory_bytes() < 90e6


def test_nothing_is_written_outside_tmp(docker: Docker, gateway: Pod) -> None:
    _predict(gateway)
    assert docker("diff", gateway.name).stdout.strip() == ""


def test_a_frozen_model_server_takes_the_gateway_out_of_service_but_does_not_restart_it(
    docker: Docker, gateway: Pod, serving: Pod
) -> None:
    docker("pause", serving.name)
    try:
        until("the gateway says that it is not ready", lambda: not gateway.probe("readiness"), 60)
        assert gateway.probe("liveness")
    finally:
        docker("unpause", serving.name)
    until("the gateway is ready again", lambda: gateway.probe("readiness"), 60)


def test_an_ending_gateway_finishes_what_it_accepted(docker: Docker, gateway_image: str, serving: Pod) -> None:
    with kubelet.running(docker, render("embedded"), "gateway", gateway_image, "-ending") as ending:
        until("the gateway is ready", lambda: ending.probe("readiness"), 60)
        with predicting(f"http://{ending.address}:8080") as answers:
            time.sleep(2)
            seconds = ending.delete()
            time.sleep(0.5)
        assert ending.exit_status == 0, ending.log()
        assert seconds < 55
        statuses = answers.statuses()
        assert set(statuses) <= {200, REFUSED}, statuses
        assert statuses[200] > 5
        assert statuses[CUT_OFF] == 0


@dataclass(frozen=True)
class _End:
    """How a pod ended."""

    answered_meanwhile: bool
    seconds: float
    status: int
    log: str


def _end(docker: Docker, kind: str, image: str) -> _End:
    with kubelet.running(docker, render(kind), "serving", image, f"-{kind}") as ending:
        until("the model server has started", lambda: ending.probe("startup"), 120)
        with ThreadPoolExecutor() as pool:
            deleting = pool.submit(ending.delete)
            time.sleep(2)
            answered = ending.probe("readiness")
            return _End(answered, deleting.result(), ending.exit_status, ending.log())


@pytest.fixture(scope="module")
def ended(docker: Docker, model_server_image: str, serving_image: str, serving: Pod) -> dict[str, _End]:
    """Both kinds of model server; side by side, because a drain is mostly waiting. `serving` brings the network."""
    images = {"embedded": model_server_image, "cpu": serving_image}
    with ThreadPoolExecutor() as pool:
        ends = {kind: pool.submit(_end, docker, kind, image) for kind, image in images.items()}
        return {kind: end.result() for kind, end in ends.items()}


@pytest.mark.parametrize(("kind", "drain_s"), [("embedded", 36), ("cpu", 70)])  # --drain_seconds, DRAIN_SECONDS
def test_an_ending_model_server_answers_through_its_drain_and_exits_with_0(
    kind: str, drain_s: float, ended: dict[str, _End]
) -> None:
    end = ended[kind]
    assert end.answered_meanwhile, "it must go on answering while it drains"
    assert end.status == 0, end.log
    assert drain_s < end.seconds < drain_s + 10  # the pods' grace periods are longer
