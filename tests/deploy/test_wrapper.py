"""The scripts around TensorFlow Serving.

k8s/images/serve-until-term: around programs that behave as it does, without a handler for SIGTERM; and quick-precision.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.deploy.load import answers_200, until
from tests.k8s.manifests import ROOT
from tests.system import free_ports

pytestmark = pytest.mark.deploy

WRAPPER = str(ROOT / "k8s/images/serve-until-term")
PRECISION = str(ROOT / "k8s/images/quick-precision")


@contextmanager
def wrapped(*command: str, drain_s: float = 1) -> Iterator["subprocess.Popen[bytes]"]:
    """The wrapper around a command; killed at the end if it still runs."""
    environ = {"DRAIN_SECONDS": str(drain_s), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([WRAPPER, *command], env=environ, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the wrapped server too
        process.wait()


@contextmanager
def http_server(tmp_path: Path, drain_s: float) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A wrapped web server that answers, without a handler for SIGTERM."""
    (port,) = free_ports(1)
    serve = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
    with wrapped(*serve, drain_s=drain_s) as process:
        until("the server answers", lambda: answers_200(f"http://127.0.0.1:{port}/"), 20, 0.05)
        yield process, f"http://127.0.0.1:{port}/"


def test_the_server_answers_while_it_drains(tmp_path: Path) -> None:
    with http_server(tmp_path, drain_s=2) as (process, url):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert answers_200(url)


def test_the_exit_status_is_0_after_the_drain(tmp_path: Path) -> None:
    with http_server(tmp_path, drain_s=1) as (process, _):
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert 1 <= time.monotonic() - begin < 4


def test_nothing_is_left_after_the_drain(tmp_path: Path) -> None:
    with http_server(tmp_path, drain_s=0.2) as (process, url):
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_a_second_signal_does_not_start_the_drain_again(tmp_path: Path) -> None:
    with http_server(tmp_path, drain_s=1) as (process, _):
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.8)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - begin < 1.7


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_of_a_server_that_ends_by_itself_is_passed_on(status: int) -> None:
    with wrapped("sh", "-c", f"exit {status}") as process:
        assert process.wait(10) == status


def test_a_server_that_is_killed_ends_the_wrapper() -> None:
    with wrapped("sh", "-c", "kill -9 $$") as process:
        assert process.wait(10) == 128 + signal.SIGKILL


def test_a_server_that_dies_while_it_drains_is_not_waited_for() -> None:
    with wrapped("sleep", "0.7", drain_s=30) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("cpu", "environ", "words", "expected"),
    [
        ("AuthenticAMD avx512_vbmi2 avx512_bf16", {}, [], "--port=1 --mixed_precision=bfloat16"),
        ("GenuineIntel avx512_bf16", {}, [], "--port=1 --mixed_precision=bfloat16"),
        ("GenuineIntel avx512_vbmi2 avx512_bf16", {}, [], "--port=1"),
        ("GenuineIntel avx512_vbmi2 avx512_bf16 amx_bf16", {}, [], "--port=1 --mixed_precision=bfloat16"),
        ("AuthenticAMD avx512_vbmi2", {}, [], "--port=1"),
        ("AuthenticAMD avx512_bf16", {"MIXED_PRECISION": "none"}, [], "--port=1"),
        ("AuthenticAMD avx512_bf16", {}, ["--mixed_precision=float32"], "--port=1 --mixed_precision=float32"),
    ],
)
def test_bfloat16_is_asked_for_where_the_cpu_is_quick_at_it(
    cpu: str, environ: dict[str, str], words: list[str], expected: str, tmp_path: Path
) -> None:
    vendor, flags = cpu.split(" ", 1)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n")
    done = subprocess.run(
        [PRECISION, "echo", "--port=1", *words], capture_output=True, text=True, check=True,
        env=environ | {"CPUINFO": str(tmp_path / "cpuinfo"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == expected


def test_a_precision_that_is_none_stops_the_start() -> None:
    done = subprocess.run(
        [PRECISION, "echo"], capture_output=True, text=True, check=False, env={"MIXED_PRECISION": "fast"}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "MIXED_PRECISION is 'fast', expected auto or none" in done.stderr
