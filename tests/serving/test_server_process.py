"""The server as a process: how it starts, what it logs, and how it ends."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serving.running import Client, failure, free_port, running, wait_until
from tests.serving.zoo import publish

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]
DRAIN_S = 0.5
RUN_S = 0.05  # of each request under load


@dataclass
class Process:
    """A running `python -m serving.server`, a client for it, and the file it logs to."""

    popen: subprocess.Popen[bytes]
    client: Client
    log: Path


@dataclass
class Ending:
    """What was seen of a server that got SIGTERM while eight callers asked without pause."""

    status: int
    health: str
    codes: list[tuple[float, float, str]]  # when a request was begun, in seconds after the signal; its time; its end
    log: list[str]


@contextmanager
def process(base_path: Path, log: Path, *flags: str) -> Iterator[Process]:
    port = free_port()
    argv = [f"--port={port}", "--model_name=zoo", f"--model_base_path={base_path}", *flags]
    with log.open("wb") as stderr:
        popen = subprocess.Popen([sys.executable, "-m", "serving.server", *argv], cwd=ROOT, stderr=stderr)
    client = Client(port)
    try:
        yield Process(popen, client, log)
    finally:
        client.channel.close()
        popen.kill()
        popen.wait()


@pytest.fixture(scope="module")
def processes(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """Two servers, started side by side because importing TensorFlow takes long; version 2 of their model is broken."""
    folder = tmp_path_factory.mktemp("process")
    publish(zoo, folder / "zoo", 1)
    (folder / "zoo/2").mkdir()
    with ExitStack() as stack:
        starts = [process(folder / "zoo", folder / f"log-{name}", f"--drain_seconds={DRAIN_S}") for name in "ab"]
        started = [stack.enter_context(start) for start in starts]
        for one in started:
            wait_until(lambda one=one: one.client.health() == "SERVING", f"it serves, see {one.log}", 120)
        yield started


@pytest.fixture(scope="module")
def ending(processes: list[Process]) -> Ending:
    server = processes[0]
    sent = threading.Semaphore(0)
    codes: list[tuple[float, float, str]] = []

    def ask() -> None:
        while not codes or codes[-1][-1] == "OK":
            begun = time.monotonic()
            sent.release()
            try:
                server.client.predict({"seconds": np.float32([RUN_S])}, "busy")
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
            codes.append((begun, time.monotonic() - begun, code))

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(ask) for _ in range(8)]
        for _ in range(24):
            sent.acquire()
        server.popen.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        wait_until(lambda: server.client.health() != "SERVING", "health has changed", 10)
        health = server.client.health()
        status = server.popen.wait(30)
        for caller in callers:
            caller.result()
    seen = [(begun - signalled, took, code) for begun, took, code in codes]
    return Ending(status, health, seen, server.log.read_text().splitlines())


def test_sigterm_ends_the_process_with_status_0(ending: Ending) -> None:
    assert ending.status == 0


def test_health_is_not_serving_while_the_server_still_answers(ending: Ending) -> None:
    assert ending.health == "NOT_SERVING"


def test_sigterm_under_load_loses_nothing_that_was_accepted(ending: Ending) -> None:
    # Less some for the machine.
    assert {code for begun, _, code in ending.codes if begun < DRAIN_S - 0.2} == {"OK"}
    assert {code for _, _, code in ending.codes} <= {"OK", "UNAVAILABLE", "CANCELLED"}
    # gRPC cancels what arrives just as the door closes, before any handler sees it; the gateway asks elsewhere then.
    cancelled = [(begun, took) for begun, took, code in ending.codes if code == "CANCELLED"]
    assert all(begun > DRAIN_S - RUN_S and took < RUN_S for begun, took in cancelled), cancelled
    assert ending.log[-1].endswith("requests=finished")


def test_stderr_has_one_line_for_each_event_and_nothing_else(ending: Ending) -> None:
    events = [re.sub(r"^\S+Z [A-Z]+ ([a-z ]+?)( \w+=.*)?$", r"\1", line) for line in ending.log]
    assert events == ["listening", "cannot load version", "version available", "stopping", "stopped"]


def test_sigint_finishes_what_runs_and_ends_with_status_0(processes: list[Process]) -> None:
    server = processes[1]
    call = server.client.begin({"seconds": np.float32([1.5])}, "busy")
    server.client.predict({"n": np.int64(1)}, "scalar")  # sent after the first, which has been accepted by now
    again = server.client.begin({"seconds": np.float32([1.5])}, "busy")
    time.sleep(0.2)
    server.popen.send_signal(signal.SIGINT)
    assert [one.result().model_spec.version.value for one in (call, again)] == [1, 1]
    assert server.popen.wait(30) == 0


def test_what_does_not_finish_in_the_grace_period_is_cut_off_and_reported(base_path: Path) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}", "--grace_seconds=0.3"]) as client:
        client.predict({"seconds": np.float32([0])}, "busy")
        call = client.begin({"seconds": np.float32([2])}, "busy")
        time.sleep(0.2)
        client.end()
        assert client.finished.result(1.5) is False
        assert failure(call.result)[0] in ("CANCELLED", "UNAVAILABLE")


def test_somebody_who_only_watches_health_does_not_hold_up_the_end(base_path: Path) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}", "--grace_seconds=15"]) as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        next(watch)
        client.end()
        assert client.finished.result(5) is True


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    """A start that must end by itself."""
    argv = [sys.executable, "-m", "serving.server", *flags]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_wrong_file_stops_the_start_with_one_line(tmp_path: Path) -> None:
    ended = start(f"--model_config_file={tmp_path / 'missing'}")
    assert ended.returncode == 2
    assert re.fullmatch(r"python -m serving.server: --model_config_file .*missing: cannot be read .*\n", ended.stderr)


def test_help_teaches_by_example() -> None:
    ended = start("--help")
    assert ended.returncode == 0
    assert "python -m serving.server --model_name culture --model_base_path models/culture" in ended.stdout


def test_reading_the_flags_does_not_wait_for_tensorflow() -> None:
    code = "import sys; from serving.server import flags; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
