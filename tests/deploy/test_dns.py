"""A gateway, model servers and a real name server, each on a host: as records come and go, so does the traffic."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.hosts import ETC, PREFIX, Lan, lan, on
from tests.deploy.load import until
from tests.deploy.nameserver import NAME
from tests.deploy.system import gateway_words, process

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(200)]

RESOLVE_S = 1.0  # what the gateway promises: "after that long a new server gets traffic"
SLACK_S = 3.0  # a busy machine's
PORT = 8500
SERVER = f"""
import sys, time
from tests.fakes import FaultyModelServer
server = FaultyModelServer("0.0.0.0:{PORT}")
while True:
    print(len(server.calls), flush=True)
    time.sleep(0.05)
"""


class Cluster:
    """What runs where. The names of hosts stand for their addresses."""

    def __init__(self, net: Lan, folder: Path, held: ExitStack) -> None:
        self._net, self._folder, self._held = net, folder, held
        self._records = folder / "records"

    def record(self, *hosts: str) -> None:
        """What the name server says from now on."""
        changed = self._folder / "records.new"
        changed.write_text("\n".join(self._net.hosts[host] for host in hosts))
        changed.rename(self._records)  # never half of it

    def serve(self, host: str) -> None:
        """A model server on a host."""
        words = on(host, [sys.executable, "-c", SERVER])
        self._held.enter_context(process(words, self._folder / f"{host}.log"))
        until(f"{host} listens", lambda: (self._folder / f"{host}.log").read_text() != "", 60)

    def calls(self, host: str) -> int:
        """How often a model server was asked; readiness probes count too."""
        return int((self._folder / f"{host}.log").read_text().split()[-1])

    def asked(self, count: int = 10) -> Counter[int]:
        """Statuses of some pictures, sent one after the other from the client's host."""
        url = f"http://{self._net.hosts['gateway']}:8080/v1/predict"
        words = on("client", [sys.executable, "-c", _ASK, url, str(count)])
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        time.sleep(0.3)  # until the servers have written their numbers
        return Counter(map(int, done.stdout.split()))


_ASK = """
import io, sys, urllib.error, urllib.request
from PIL import Image
file = io.BytesIO()
Image.new("RGB", (32, 32), "red").save(file, "PNG")
for _ in range(int(sys.argv[2])):
    try:
        print(urllib.request.urlopen(sys.argv[1], file.getvalue(), timeout=15).status)
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError:  # nobody listens yet
        print(0)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with lan() as net, ExitStack() as held:
        for name in ("dns", "client", "gateway", "model1", "model2", "model3"):
            net.add(name)
        # `ip netns exec` mounts these over /etc's own: nothing but the name server knows the name.
        (ETC / f"{PREFIX}-gateway" / "resolv.conf").write_text(f"nameserver {net.hosts['dns']}\noptions timeout:1\n")
        found = Cluster(net, tmp_path, held)
        found.record("model1")
        words = on("dns", [sys.executable, "-m", "tests.deploy.nameserver", tmp_path / "records", net.hosts["dns"]])
        held.enter_context(process(words, tmp_path / "dns.log"))
        until("the name server listens", lambda: "ready" in (tmp_path / "dns.log").read_text(), 60)
        for host in ("model1", "model2", "model3"):
            found.serve(host)
        environ = {"WHENCE_BACKEND": f"dns:///{NAME}:{PORT}", "WHENCE_RESOLVE_S": str(RESOLVE_S)}
        held.enter_context(process(on("gateway", gateway_words()), tmp_path / "gateway.log", **environ))
        until("the gateway answers", lambda: found.asked(1) == {200: 1}, 90)
        yield found


def test_records_that_come_and_go_move_the_traffic_within_the_stated_time(cluster: Cluster) -> None:
    assert cluster.asked() == {200: 10}
    assert (cluster.calls("model2"), cluster.calls("model3")) == (0, 0)

    cluster.record("model1", "model2")
    time.sleep(RESOLVE_S + SLACK_S)
    before = cluster.calls("model1")
    assert cluster.asked() == {200: 10}
    assert cluster.calls("model2") >= 4  # its share
    assert cluster.calls("model1") - before >= 4

    cluster.record("model2", "model3")
    time.sleep(RESOLVE_S + SLACK_S)
    before = cluster.calls("model1")
    assert cluster.asked() == {200: 10}
    assert cluster.calls("model3") >= 4
    assert cluster.calls("model1") == before  # nothing more for whoever left

    cluster.record()  # a bad day of DNS changes nothing
    time.sleep(RESOLVE_S + SLACK_S)
    assert cluster.asked() == {200: 10}
