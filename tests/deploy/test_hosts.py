"""Two gateways, two model servers and a balancer on hosts of their own: lose one, add one, replace all, under load.

haproxy stands in for the Service: it asks /readyz as a kubelet does, and takes a host out that says no.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.hosts import Lan, lan, on
from tests.deploy.load import until
from tests.deploy.system import Process, export_model, gateway_words, model_server_words, process, program
from tests.k8s.manifests import ROOT

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(400)]

HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  timeout check 7s
  option httpchk GET /readyz
  # a connection that is refused is tried on the other host; a request that was sent is not
  retries 2
  option redispatch
frontend service
  bind :80
  default_backend gateways
backend gateways
  balance leastconn
  default-server check inter 500ms fall 1 rise 1
  server gateway1 {0}:8080
  server gateway2 {1}:8080
"""


@dataclass
class Cluster:
    """What runs where."""

    lan: Lan
    gateways: dict[str, Process]
    models: dict[str, Process]
    folder: Path

    def know_models(self, *names: str) -> None:
        """Make the name `serving` mean these hosts, for every gateway."""
        for gateway in self.gateways:
            self.lan.name(gateway, "serving", *(self.lan.hosts[name] for name in names))

    def get(self, path: str, host: str = "balancer", port: int = 80) -> int:
        """The status of a GET from the client's host, 0 for none."""
        url = f"http://{self.lan.hosts[host]}:{port}{path}"
        words = on("client", [sys.executable, "-c", _GET, url])
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    @contextmanager
    def predicting(self, callers: int = 3) -> Iterator["Counter[int]"]:
        """Load from the client's host; its statuses are there after the block."""
        statuses: Counter[int] = Counter()
        stop = self.folder / f"stop-{time.monotonic_ns()}"
        words: list[str | Path] = [
            sys.executable,
            "-m",
            "tests.deploy.load",
            f"http://{self.lan.hosts['balancer']}",
            str(callers),
            stop,
        ]
        child = subprocess.Popen(on("client", words), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(2)
            yield statuses
        finally:
            stop.touch()
            lines, _ = child.communicate(timeout=60)
        statuses.update(int(line) for line in lines.split())


_GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=8).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    haproxy = program("haproxy")
    export_model()
    folder = tmp_path_factory.mktemp("hosts")
    with lan() as net, ExitStack() as stack:
        for name in ("balancer", "client", "gateway1", "gateway2", "model1", "model2", "model3"):
            net.add(name)
        (folder / "haproxy.cfg").write_text(HAPROXY.format(net.hosts["gateway1"], net.hosts["gateway2"]))
        models = {
            name: stack.enter_context(
                process(on(name, model_server_words(8500, 8501, host="0.0.0.0")), folder / f"{name}.log")
            )
            for name in ("model1", "model2")
        }
        found = Cluster(net, {}, models, folder)
        for name in ("gateway1", "gateway2"):
            net.name(name, "serving", net.hosts["model1"], net.hosts["model2"])
            environ = {"WHENCE_BACKEND": "dns:///serving:8500", "WHENCE_RESOLVE_S": "0.5"}
            log = folder / f"{name}.log"
            found.gateways[name] = stack.enter_context(process(on(name, gateway_words()), log, **environ))
        stack.enter_context(
            process(on("balancer", [haproxy, "-db", "-f", str(folder / "haproxy.cfg")]), folder / "haproxy.log")
        )
        for name in found.gateways:
            until(f"{name} is ready", lambda name=name: found.get("/readyz", name, 8080) == 200, 90)  # type: ignore[misc]
        until("the balancer has them", lambda: found.get("/readyz") == 200, 20)
        yield found


def test_pictures_are_answered_through_all_hosts(cluster: Cluster) -> None:
    with cluster.predicting() as statuses:
        time.sleep(3)
    assert set(statuses) == {200}


def test_a_rolling_restart_of_the_gateways_loses_no_request(cluster: Cluster) -> None:
    with cluster.predicting() as statuses:
        for name, gateway in cluster.gateways.items():
            assert gateway.stop() == 0
            gateway.start_again()
            until(f"{name} is ready", lambda name=name: cluster.get("/readyz", name, 8080) == 200, 60)  # type: ignore[misc]
            time.sleep(1)
    assert set(statuses) == {200}, statuses
    assert statuses[200] > 20


def test_a_rolling_restart_of_the_model_servers_loses_no_request(cluster: Cluster) -> None:
    with cluster.predicting() as statuses:
        for name, other in (("model1", "model2"), ("model2", "model1")):
            # As in the cluster: first out of DNS, then SIGTERM.
            cluster.know_models(other)
            time.sleep(1.5)
            assert cluster.models[name].stop() == 0
            cluster.models[name].start_again()
            _loaded(cluster, name)
            cluster.know_models("model1", "model2")
            time.sleep(1.5)
    assert set(statuses) == {200}, statuses
    assert statuses[200] > 20


def test_a_model_server_that_is_killed_costs_no_answer(cluster: Cluster) -> None:
    with cluster.predicting() as statuses:
        cluster.models["model2"].child.kill()
        cluster.models["model2"].child.wait()
        time.sleep(4)
    cluster.models["model2"].start_again()
    _loaded(cluster, "model2")
    assert set(statuses) == {200}, statuses


def test_a_new_model_server_gets_requests(cluster: Cluster) -> None:
    words = on("model3", model_server_words(8500, 8501, host="0.0.0.0"))
    with process(words, cluster.folder / "model3.log") as new:
        cluster.models["model3"] = new
        _loaded(cluster, "model3")
        before = _requests(cluster, "model3")
        cluster.know_models("model1", "model2", "model3")
        with cluster.predicting() as statuses:
            until("it was asked", lambda: _requests(cluster, "model3") > before + 3, 30)
        cluster.know_models("model1", "model2")
        time.sleep(1.5)
    assert set(statuses) == {200}, statuses


def test_a_host_behind_a_cut_cable_costs_no_more_than_what_it_held(cluster: Cluster) -> None:
    with cluster.predicting() as statuses:
        cluster.lan.cut("gateway1")
        time.sleep(5)
        cluster.lan.cut("gateway1", whole=True)
        until("gateway1 is ready", lambda: cluster.get("/readyz", "gateway1", 8080) == 200, 60)
    failed = sum(count for status, count in statuses.items() if status != 200)
    assert failed <= 3, statuses  # one for each caller
    assert statuses[200] > 10


def _loaded(cluster: Cluster, name: str) -> None:
    page = "/v1/models/culture"
    until(f"{name} has the model", lambda: '"AVAILABLE"' in _read(cluster, name, page), 90)


def _requests(cluster: Cluster, name: str) -> float:
    text = _read(cluster, name, "/monitoring/prometheus/metrics")
    lines = [line for line in text.splitlines() if line.startswith(":tensorflow:serving:request_count{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def _read(cluster: Cluster, name: str, path: str) -> str:
    script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
    words = on("client", [sys.executable, "-c", script, f"http://{cluster.lan.hosts[name]}:8501{path}"])
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout
