"""Gateway, model servers, Prometheus, Alertmanager on loopback: every query has an answer, an alert comes and goes."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.load import CUT_OFF, PICTURE, predicting, until
from tests.deploy.system import (
    Process,
    Prometheus,
    export_model,
    gateway_words,
    model_server_words,
    process,
    program,
    wait_for,
)
from tests.k8s.manifests import K8S, ROOT
from tests.system import free_ports

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(400)]

DASHBOARD = json.loads((K8S / "monitoring/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


@dataclass(frozen=True)
class Watched:
    """The system and who watches it."""

    url: str
    model_servers: tuple[Process, Process]
    prometheus: Prometheus
    alertmanager: str


def _hurried(rules: Any) -> Any:
    """The shipped rules, but evaluated each second, and alerts that wait for two: tests cannot wait minutes."""
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "2s"
    return rules


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager")
    export_model()
    folder = tmp_path_factory.mktemp("watched")
    http, grpc, rest, grpc2, rest2, prom, am = free_ports(7)
    rules = _hurried(yaml.safe_load((K8S / "monitoring/rules.yaml").read_text()))
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    targets = {"whence-gateway": [f"127.0.0.1:{http}"], "whence-serving": [f"127.0.0.1:{rest}", f"127.0.0.1:{rest2}"]}
    shipped = yaml.safe_load((ROOT / "k8s/monitoring/prometheus.yml").read_text())
    jobs = [
        {key: value for key, value in job.items() if key != "dns_sd_configs"}
        | {"static_configs": [{"targets": targets[job["job_name"]]}]}
        for job in shipped["scrape_configs"]
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": jobs,
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{am}"]}]}]},
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "am.yml").write_text("route: { receiver: nobody, group_wait: 1s }\nreceivers: [{ name: nobody }]\n")
    storage = folder / "am"
    backends = f"127.0.0.1:{grpc},127.0.0.1:{grpc2}"
    with (
        process(model_server_words(grpc, rest), folder / "one.log") as one,
        process(model_server_words(grpc2, rest2), folder / "two.log") as two,
        process(
            gateway_words(),
            folder / "gateway.log",
            WHENCE_BACKEND=backends,
            WHENCE_PORT=str(http),
            WHENCE_HOST="127.0.0.1",
            WHENCE_MAX_IN_FLIGHT="2",
            WHENCE_MAX_WAITING="1",
        ),
        process(
            [
                *(alertmanager, f"--config.file={folder / 'am.yml'}", f"--storage.path={storage}"),
                *(f"--web.listen-address=127.0.0.1:{am}", "--cluster.listen-address="),
            ],
            folder / "am.log",
        ),
        process(
            [
                *(prometheus, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"),
                f"--web.listen-address=127.0.0.1:{prom}",
            ],
            folder / "prometheus.log",
        ),
    ):
        wait_for("the gateway", f"http://127.0.0.1:{http}/readyz")
        wait_for("Prometheus", f"http://127.0.0.1:{prom}/-/ready")
        wait_for("Alertmanager", f"http://127.0.0.1:{am}/-/ready")
        system = Watched(
            f"http://127.0.0.1:{http}", (one, two), Prometheus(f"http://127.0.0.1:{prom}"), f"http://127.0.0.1:{am}"
        )
        _busy(system)
        yield system


def _busy(system: Watched) -> None:
    """More load than there are places, and a model server that dies while it answers: something for every panel."""
    with predicting(system.url, callers=8, pause_s=0.02) as answers:
        until("something was answered and something refused", lambda: {200, 503} <= set(answers.statuses()), 60)
        time.sleep(5)
    with predicting(system.url, callers=2, pause_s=0.02) as answers:
        retried = 'sum(whence_rpc_retries_total{outcome="success"}) > 0'
        for _ in range(5):
            system.model_servers[1].child.kill()
            system.model_servers[1].child.wait()
            time.sleep(2.5)
            if system.prometheus.query(retried):
                break
            system.model_servers[1].start_again()
            time.sleep(8)
    system.model_servers[1].start_again()
    until("the second model server is back", lambda: _ready_backends(system) == 2, 60)
    with predicting(system.url, callers=2) as answers:
        time.sleep(6)
    assert CUT_OFF not in answers.statuses()


def _ready_backends(system: Watched) -> float:
    found = system.prometheus.query("max(whence_backend_ready)")
    return float(found[0]["value"][1]) if found else 0.0  # type: ignore[index]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_has_an_answer(query: str, watched: Watched) -> None:
    expression = query.replace("$__rate_interval", "2m")
    until(f"an answer to {expression}", lambda: bool(watched.prometheus.query(expression)), 15)


def test_every_rule_is_evaluated(watched: Watched) -> None:
    def healthy() -> bool:
        groups = httpx.get(f"{watched.prometheus.url}/api/v1/rules").json()["data"]["groups"]
        return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

    until("every rule is healthy", healthy, 30)


def test_every_recording_rule_has_a_value(watched: Watched) -> None:
    rules = yaml.safe_load((K8S / "monitoring/rules.yaml").read_text())
    names = [rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule]
    assert [name for name in names if not watched.prometheus.query(name)] == []


def test_the_metrics_are_well_formed(watched: Watched) -> None:
    text = httpx.get(f"{watched.url}/metrics").text
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_arrives_when_the_model_servers_stop_and_goes_when_they_are_back(watched: Watched) -> None:
    def arrived() -> bool:
        alerts = httpx.get(f"{watched.alertmanager}/api/v2/alerts").json()
        return any(alert["labels"]["alertname"] == "WhenceModelServerDown" for alert in alerts)

    assert "WhenceModelServerDown" not in watched.prometheus.firing()
    headers = {"Content-Type": "image/jpeg"}
    for server in watched.model_servers:
        server.child.send_signal(signal.SIGKILL)
        server.child.wait()
    try:
        answer = httpx.post(f"{watched.url}/v1/predict", content=PICTURE.read_bytes(), headers=headers, timeout=15)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        with predicting(watched.url, callers=1):
            until("the alert fires", lambda: "WhenceModelServerDown" in watched.prometheus.firing(), 30)
        until("the alert is in Alertmanager", arrived, 20)
    finally:
        for server in watched.model_servers:
            server.start_again()
    wait_for("the gateway", f"{watched.url}/readyz")
    until("the alert is over", lambda: "WhenceModelServerDown" not in watched.prometheus.firing(), 30)


def test_the_alert_has_a_runbook_that_exists(watched: Watched) -> None:
    groups = httpx.get(f"{watched.prometheus.url}/api/v1/rules?type=alert").json()["data"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    assert links
    assert all(link.startswith("README.md#whence") for link in links)
