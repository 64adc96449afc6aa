"""`docker compose up` with the images of this checkout, and what it does when something breaks under load."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.deploy.engine import Docker
from tests.deploy.load import CUT_OFF, PICTURE, REFUSED, answers_200, predicting, until
from tests.system import free_ports

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

PROJECT = "whence-test"


class Stack:
    """The project, up."""

    def __init__(self, docker: Docker, http: int, prometheus: int) -> None:
        self.docker = docker
        self.url, self.prometheus = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{prometheus}"
        docker.environ |= {"HTTP_PORT": str(http), "PROMETHEUS_PORT": str(prometheus), "IMAGE_TAG": "test"}

    def compose(self, *words: str, check: bool = True) -> str:
        """One command of compose; its output."""
        return self.docker.compose("--project-name", PROJECT, *words, check=check).stdout

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{PROJECT}-{service}-1"

    def ready(self) -> bool:
        """Whether the gateway would answer."""
        return answers_200(f"{self.url}/readyz")

    def predict(self) -> httpx.Response:
        """One picture's answer."""
        headers = {"Content-Type": "image/jpeg"}
        return httpx.post(f"{self.url}/v1/predict", content=PICTURE.read_bytes(), headers=headers, timeout=20)

    def query(self, expression: str) -> list[dict[str, object]]:
        """What Prometheus answers."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}).json()
        found: list[dict[str, object]] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module")
def stack(docker: Docker, gateway_image: str, serving_image: str) -> Iterator[Stack]:
    found = Stack(docker, *free_ports(2))
    try:
        found.compose("up", "--detach", "--no-build", "--pull", "never", "--wait", "--wait-timeout", "150")
        yield found
    finally:
        found.compose("down", "--volumes", "--timeout", "20", check=False)


def test_up_gives_a_gateway_that_answers(stack: Stack) -> None:
    answer = stack.predict()
    assert answer.status_code == 200, answer.text


def test_up_starts_three_healthy_containers(stack: Stack) -> None:
    found = [json.loads(line) for line in stack.compose("ps", "--format", "json").splitlines()]
    assert {each["Service"]: each["Health"] for each in found} == {
        "gateway": "healthy",
        "serving": "healthy",
        "prometheus": "healthy",
    }


def test_prometheus_sees_gateway_and_model_server(stack: Stack) -> None:
    until("both targets are up", lambda: len(stack.query('up{job=~"whence-.*"} == 1')) == 2, 40)


def test_prometheus_evaluates_the_rules(stack: Stack) -> None:
    def healthy() -> set[str]:
        groups = httpx.get(f"{stack.prometheus}/api/v1/rules").json()["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    until("rules are evaluated", lambda: "ok" in healthy(), 60)
    assert healthy() <= {"ok", "unknown"}  # unknown: those of two minutes had no turn yet


def test_nothing_but_the_gateway_and_prometheus_is_published(stack: Stack) -> None:
    found = [json.loads(line) for line in stack.compose("ps", "--format", "json").splitlines()]
    published = {
        (each["Service"], port["URL"]) for each in found for port in each["Publishers"] if port["PublishedPort"]
    }
    assert published >= {("prometheus", "127.0.0.1")}
    assert {service for service, _ in published} == {"gateway", "prometheus"}
    assert {address for service, address in published if service == "prometheus"} == {"127.0.0.1"}


def test_the_model_server_reaches_nothing_outside(stack: Stack) -> None:
    (container,) = json.loads(stack.docker("inspect", stack.container("serving")).stdout)
    assert list(container["NetworkSettings"]["Networks"]) == [f"{PROJECT}_inner"]
    (inner,) = json.loads(stack.docker("network", "inspect", f"{PROJECT}_inner").stdout)
    assert inner["Internal"] is True


def test_a_killed_model_server_means_503_at_once_until_it_is_back(stack: Stack) -> None:
    with predicting(stack.url) as answers:
        stack.docker("kill", stack.container("serving"))
        until("a 503 is answered", lambda: answers.statuses()[503] > 3, 20)
        assert answers_200(f"{stack.url}/healthz")
        stack.compose("up", "--detach", "--no-build", "--pull", "never", "--wait", "serving")
        until("pictures are answered again", stack.ready, 60)
        since = time.monotonic() + 1
        time.sleep(3)
    assert set(answers.statuses()) <= {200, 503}, answers.statuses()
    assert set(answers.statuses(since)) == {200}


def test_a_frozen_model_server_holds_nobody_longer_than_the_budget(stack: Stack) -> None:
    with predicting(stack.url) as answers:
        time.sleep(1)
        stack.docker("pause", stack.container("serving"))
        time.sleep(6)
        stack.docker("unpause", stack.container("serving"))
        until("the gateway is ready again", stack.ready, 60)
    assert set(answers.statuses()) <= {200, 503, 504}, answers.statuses()
    assert answers.slowest_s() < 12


def test_a_restarted_gateway_finishes_what_it_accepted(stack: Stack) -> None:
    with predicting(stack.url) as answers:
        time.sleep(1)
        stack.compose("restart", "gateway")
        until("the gateway is ready again", stack.ready, 60)
        time.sleep(1)
    # Docker's proxy of the published port accepts connections for a container that is gone, and cuts them off.
    assert set(answers.statuses()) <= {200, REFUSED, CUT_OFF, 503}, answers.statuses()
    assert answers.statuses()[200] > 10


def test_a_stopped_gateway_exits_with_0(stack: Stack) -> None:
    begin = time.monotonic()
    stack.compose("stop", "gateway")
    status = stack.docker("inspect", stack.container("gateway"), "--format", "{{.State.ExitCode}}").stdout.strip()
    took_s = time.monotonic() - begin
    stack.compose("up", "--detach", "--no-build", "--pull", "never", "--wait", "gateway")
    assert status == "0"
    assert took_s < 44


def test_down_leaves_nothing(stack: Stack) -> None:
    stack.compose("down", "--volumes")
    for kind in ("container", "volume", "network"):
        listed = ("ls", "--all") if kind == "container" else ("ls",)
        found = stack.docker(kind, *listed, "--filter", f"label=com.docker.compose.project={PROJECT}", "--quiet")
        assert found.stdout == "", kind
