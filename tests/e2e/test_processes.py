"""What happens to the running system when one of its processes dies, and how it stops."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.system import PICTURES, ROOT, System, running, wait_until_ready


def children(system: System) -> dict[str, int]:
    """Process ids of the model server and the gateway's arbiter, the launcher's two children."""
    found = {}
    for pid in Path(f"/proc/{system.launcher.pid}/task/{system.launcher.pid}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        found["server" if b"serving.server" in words else "gateway"] = int(pid)
    return found


def post(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/predict", content=PICTURES[0].read_bytes(), headers={"Content-Type": "image/jpeg"})


def test_a_killed_model_server_is_answered_with_503_and_comes_back(tmp_path: Path) -> None:
    with running(tmp_path / "log") as system, system.client() as client:
        os.kill(children(system)["server"], signal.SIGKILL)
        reply = post(client)
        assert reply.status_code == 503
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert int(reply.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200
        end = time.monotonic() + 90
        while (reply := post(client)).status_code != 200 and time.monotonic() < end:
            time.sleep(0.5)
        assert reply.status_code == 200, reply.text


def test_a_killed_gateway_comes_back(tmp_path: Path) -> None:
    with running(tmp_path / "log") as system:
        killed = children(system)["gateway"]
        os.killpg(killed, signal.SIGKILL)
        while children(system).get("gateway") in (killed, None):
            time.sleep(0.05)
        wait_until_ready(system)
        with system.client() as client:
            assert post(client).status_code == 200


def test_sigterm_under_load_loses_no_accepted_request(tmp_path: Path) -> None:
    """Every request is answered 200, refused with 503, or finds the port closed: none is cut off half-way."""
    outcomes: list[int | str] = []
    stop = threading.Event()

    def load(url: str) -> None:
        while not stop.is_set():
            try:
                with httpx.Client(base_url=url, timeout=60) as client:
                    outcomes.append(post(client).status_code)
            except httpx.ConnectError:
                stop.wait(0.05)
            except httpx.HTTPError as error:
                outcomes.append(repr(error))

    with running(tmp_path / "log") as system:
        threads = [threading.Thread(target=load, args=(system.url,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while outcomes.count(200) < 10:
            time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {200, 503}


def test_the_model_server_has_huge_pages_where_linux_gives_them(system: System) -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("this Linux gives no huge pages")
    rollup = Path(f"/proc/{children(system)['server']}/smaps_rollup").read_text()
    (kilobytes,) = re.findall(r"^AnonHugePages:\s+(\d+) kB", rollup, flags=re.MULTILINE)
    assert int(kilobytes) > 20_000  # the weights alone are 60 MB; memory that is in pieces has fewer huge pages


def test_a_port_in_use_stops_the_start_with_a_clear_word(system: System) -> None:
    port = system.url.rsplit(":", 1)[1]
    command = [str(ROOT / ".venv/gateway/bin/python"), "-m", "serving.local", f"--port={port}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in done.stderr
