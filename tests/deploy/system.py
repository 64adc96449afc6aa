"""The real processes, for tests that need no container: model server, gateway, Prometheus, Alertmanager."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.deploy.load import answers_200, until
from tests.k8s.manifests import ROOT

SERVING_PYTHON: Final = ROOT / ".venv/serving/bin/python"
MODELS: Final = ROOT / "models"


class Process:
    """A program with a log; TERM and the wait for it are the test's."""

    def __init__(self, words: Sequence[str | Path], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self.words, self.log, self.environ = [str(word) for word in words], log, environ
        self.child = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | dict(self.environ or {})
        with self.log.open("ab") as output:
            return subprocess.Popen(self.words, cwd=ROOT, env=environ, stdout=output, stderr=output)

    def start_again(self) -> None:
        """The same command once more."""
        self.child = self._start()

    def stop(self, limit_s: float = 60) -> int:
        """SIGTERM, then the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(limit_s)

    def end(self) -> None:
        """Whatever it takes."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


@contextmanager
def process(words: Sequence[str | Path], log: Path, **environ: str) -> Iterator[Process]:
    """A program for the time of the block."""
    found = Process(words, log, environ)
    try:
        yield found
    finally:
        found.end()


def program(name: str) -> str:
    """A program on PATH. Skips where it is not installed."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def export_model() -> None:
    """The released model as a SavedModel, once. Skips where the model server's environment is not there."""
    if not SERVING_PYTHON.exists():
        pytest.skip("no .venv/serving: `make setup` makes it")
    if not any((MODELS / "culture").glob("[0-9]*")):
        subprocess.run([SERVING_PYTHON, "-m", "training", "export", "--models", MODELS], cwd=ROOT, check=True)


def model_server_words(grpc: int, rest: int, host: str = "127.0.0.1") -> list[str | Path]:
    """The embedded model server with the configuration of the images, and one thread: other things run here too."""
    return [
        *(
            "nice",
            SERVING_PYTHON,
            "-m",
            "serving.server",
            f"--host={host}",
            f"--port={grpc}",
            f"--rest_api_port={rest}",
        ),
        *("--model_config_file=serving/models.config", f"--model_base_path={MODELS / 'culture'}"),
        *("--batching_parameters_file=serving/batching.config", "--monitoring_config_file=serving/monitoring.config"),
        *("--tensorflow_intra_op_parallelism=1", "--drain_seconds=1"),
    ]


def gateway_words() -> list[str | Path]:
    """The gateway's command as in its image."""
    return [sys.executable, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway:create_app()"]


def wait_for(what: str, url: str, limit_s: float = 90) -> None:
    """Until a GET is answered with 200."""
    until(f"{what} answers", lambda: answers_200(url), limit_s)


class Prometheus:
    """A running Prometheus, asked through its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, object]]:
        """The vector that an expression is now. Fails for one that Prometheus refuses."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, object]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = httpx.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
