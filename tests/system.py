"""The same processes that `make run` starts, on free ports, with the released model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "tests/images").glob("*.jpg"))
START_LIMIT_S = 150  # a cold start on a busy machine with two cores, the export included


@dataclass(frozen=True)
class System:
    """A running Whence."""

    url: str
    grpc: str
    launcher: subprocess.Popen[bytes]
    log: Path

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)  # type: ignore[arg-type]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[System]:
    """Start serving.local, wait until it is ready, stop it politely and insist on exit status 0."""
    port, grpc, rest = free_ports(3)
    command = [sys.executable, "-m", "serving.local", f"--port={port}", f"--grpc-port={grpc}", f"--rest-port={rest}"]
    with log.open("wb") as output:
        feedback = f"sqlite:///{log.parent}/feedback.sqlite3"  # what tests say is not what people say
        environ = os.environ | {"PYTHONPATH": str(ROOT), "WHENCE_FEEDBACK_DATABASE": feedback}
        launcher = subprocess.Popen([*command, *arguments], cwd=ROOT, env=environ, stdout=output, stderr=output)
    system = System(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc}", launcher, log)
    try:
        wait_until_ready(system)
        yield system
    finally:
        launcher.send_signal(signal.SIGTERM)
        status = launcher.wait(90)
    assert status == 0, log.read_text()[-4000:]


def wait_until_ready(system: System, limit_s: float = START_LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        assert system.launcher.poll() is None, system.log.read_text()[-4000:]
        try:
            if httpx.get(f"{system.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready after {limit_s} s:\n{system.log.read_text()[-4000:]}")
