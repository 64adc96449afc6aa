"""The gateway as a process: start, memory, big and odd bodies, what touches the disk, how it stops."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.fakes import FaultyModelServer, slow
from tests.gateway.conftest import noise, picture
from tests.gateway.processes import ROOT, Gateway

MB = 1_000_000


def test_starts_with_little_memory_and_is_ready_at_once(start: Callable[..., Gateway]) -> None:
    gateway = start()
    gateway.wait_for_status("/readyz", 200)
    assert gateway.memory() < 90


def test_a_wrong_setting_stops_the_start_by_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-c", "gateway/gunicorn.conf.py", "gateway:create_app()"]
    environ = os.environ | {"WHENCE_MAX_PIXEL": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "WHENCE_MAX_PIXEL is no setting of the gateway; did you mean WHENCE_MAX_PIXELS?" in run.stdout + run.stderr


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_it_listens_on_ipv6(tmp_path: Path, host: str) -> None:
    gateway = Gateway(tmp_path / "log", listen=host, backend="127.0.0.1:1", drain_s=0)
    assert gateway.stop() == 0


def test_tensorflow_is_not_even_installed_here() -> None:
    code = (
        "import gateway.app, gateway.client, sys; print([m for m in sys.modules if 'tensorflow' in m or 'keras' in m])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
    with pytest.raises(ImportError):
        __import__("tensorflow")


def test_gunicorns_master_never_imports_grpc(start: Callable[..., Gateway]) -> None:
    gateway = start()
    assert "cygrpc" not in Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "cygrpc" in Path(f"/proc/{gateway.workers()[0]}/maps").read_text()


def chunks(total: int) -> Iterator[bytes]:
    sent = 0
    while sent < total:
        yield b"\0" * MB
        sent += MB


@pytest.mark.parametrize("announced", [True, False], ids=["with length", "chunked"])
def test_a_hundred_megabytes_of_zeros_are_refused_with_bounded_memory(
    start: Callable[..., Gateway], announced: bool
) -> None:
    gateway = start(max_body_bytes=30 * MB, max_upload_bytes=20 * MB)
    headers = {"Content-Type": "image/jpeg"} | ({"Content-Length": str(100 * MB)} if announced else {})
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # the gateway stops listening, as it may
            connection.request("POST", "/v1/predict", chunks(100 * MB), headers, encode_chunked=not announced)
        answer = connection.getresponse()
        answer.read()
    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert gateway.memory("VmHWM") < 250
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 200


def test_a_chunked_picture_is_answered(start: Callable[..., Gateway]) -> None:
    answer = start().http.post("/v1/predict", content=iter([picture()[:100], picture()[100:]]))
    assert answer.status_code == 200


def test_a_body_that_ends_early_is_not_classified(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    gateway = start()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + picture()[:300])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert not server.calls


def test_a_picture_costs_little_of_the_gateways_cpu(start: Callable[..., Gateway]) -> None:
    gateway = start()
    data = noise((640, 480), quality=90)
    assert 250_000 < len(data) < 400_000
    gateway.http.post("/v1/predict", content=data)
    before, count = gateway.cpu_s(), 60
    for _ in range(count):
        gateway.http.post("/v1/predict", content=data).raise_for_status()
    per_request_ms = (gateway.cpu_s() - before) / count * 1000
    print(f"{per_request_ms:.1f} ms of CPU for {len(data):,} bytes")
    assert per_request_ms < 30  # 12 on a quiet machine; noise compresses badly and decodes slowly


def test_several_workers_count_together_and_survive_the_death_of_one(start: Callable[..., Gateway]) -> None:
    gateway = start(workers=2)
    for _ in range(10):
        gateway.http.post("/v1/predict", content=picture()).raise_for_status()
    name = "whence_http_requests_total"
    assert gateway.metric(name, route="/v1/predict", code="200") == 10
    victim = gateway.workers()[0]
    os.kill(victim, 9)
    while len(set(gateway.workers()) - {victim}) < 2:
        pass
    gateway.wait_for_status("/readyz", 200)
    gateway.http.post("/v1/predict", content=picture()).raise_for_status()
    assert gateway.metric(name, route="/v1/predict", code="200") == 11
    assert gateway.metric("whence_backend_ready") == 1


def test_sigterm_finishes_what_was_accepted(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    gateway = start()
    server.behaviour = slow(1.0)
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(gateway.http.post("/v1/predict", content=picture(), timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(server.calls) < 8:
        pass
    assert gateway.stop() == 0
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
