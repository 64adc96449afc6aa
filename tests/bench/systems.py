"""What is measured: Whence in three precisions, two peers, and the engines alone; how each is started and asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from serving.local import give_way
from serving.memory import HUGE_PAGES
from tests.bench import pictures
from tests.bench.load import Body, Caller
from tests.system import ROOT, free_ports

START_LIMIT_S = 240.0
MODEL_SERVER = "server"  # of Whence's two processes the one that `make run` lets give way
# Whence's own defaults; a peer's own too, which is TensorFlow's.
ENVIRON = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass
class System:
    """Something that answers pictures over HTTP. `commands` start in order, and stop in the reverse order."""

    name: str
    url: str
    commands: Mapping[str, Sequence[str]]  # process name -> command
    body: Callable[[bytes], Body] = pictures.raw
    environ: dict[str, str] = field(default_factory=dict)
    metrics: Sequence[str] = ()  # addresses of Prometheus pages, where it has them
    restless: bool = False  # takes CPU while nobody asks it, and is therefore suspended then
    start_s: float = 0.0  # until the first answer
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, log_dir: Path) -> None:
        """Returns when the first picture is answered."""
        begin = time.monotonic()
        for name, command in self.commands.items():
            with (log_dir / f"{self.name}-{name}.log").open("wb") as log:
                huge = HUGE_PAGES if name == MODEL_SERVER else {}
                environ = huge | os.environ | ENVIRON | self.environ
                self.running[name] = subprocess.Popen(
                    command, cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
                )
            if name == MODEL_SERVER:
                give_way(self.running[name].pid)
        picture = self.body(pictures.real()[0])
        while Caller(self.url).ask(picture) != "200":
            if dead := [name for name, process in self.running.items() if process.poll() is not None]:
                raise RuntimeError(f"{self.name}: {dead[0]} ended; see {log_dir}")
            if time.monotonic() - begin > START_LIMIT_S:
                raise RuntimeError(f"{self.name} did not answer within {START_LIMIT_S:g} s; see {log_dir}")
            time.sleep(0.05)
        self.start_s = round(time.monotonic() - begin, 2)

    def rest(self) -> None:
        """Nobody asks until `resume`: take no CPU."""
        if self.restless:
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It is asked again."""
        if self.restless:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def stop(self) -> None:
        """Politely, then for good."""
        self.resume()
        for process in reversed(self.running.values()):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):  # what it left behind: LitServe's children outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self.running.clear()


@dataclass
class Ceiling:
    """An engine alone. It is asked over its standard input, so it is quiet while others are measured."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None

    def start(self, log_dir: Path) -> None:
        """Returns when the model is loaded."""
        with (log_dir / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=HUGE_PAGES | os.environ | ENVIRON, text=True, stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        if self._line() != "ready":
            raise RuntimeError(f"{self.name} did not start; see {log_dir}")

    def rate(self, rows: int, runs: int, seconds: float) -> float:
        """Pictures per second in batches of `rows`, so many at a time."""
        print(rows, runs, seconds, file=self._pipe("stdin"), flush=True)
        return float(self._line())

    def stop(self) -> None:
        """It ends when its input does."""
        self._pipe("stdin").close()
        if self.process:
            self.process.wait(60)

    def _line(self) -> str:
        return self._pipe("stdout").readline().strip()

    def _pipe(self, name: str) -> TextIO:
        pipe = getattr(self.process, name)
        assert pipe is not None
        return pipe  # type: ignore[no-any-return]


def whence(precision: str, models: Path) -> System:
    """The two processes of `make run`, on free ports."""
    port, grpc, rest = free_ports(3)
    is_int8 = precision == "int8"
    python = ROOT / ".venv" / ("int8" if is_int8 else "serving") / "bin/python"
    engine = ["--engine=openvino-int8"] if is_int8 else [f"--mixed_precision={precision}"]
    server = [
        str(python), "-m", "serving.server", f"--port={grpc}", f"--rest_api_port={rest}",
        "--model_config_file=serving/models.config", f"--model_base_path={models / folder(precision)}",
        "--batching_parameters_file=serving/batching.config", "--monitoring_config_file=serving/monitoring.config",
        *engine,
    ]  # fmt: skip
    gateway = [
        str(ROOT / ".venv/gateway/bin/python"), "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py",
        "--bind", f"127.0.0.1:{port}", "gateway:create_app()",
    ]  # fmt: skip
    release = ROOT / "training/release"
    environ = {
        "WHENCE_BACKEND": f"dns:///127.0.0.1:{grpc}",
        "WHENCE_LOG_LEVEL": "warning",
        "WHENCE_INDEX": str(release / "index"),
        "WHENCE_REFERENCE": str(release / "reference.json"),
    }
    return System(
        f"whence-{precision}",
        f"http://127.0.0.1:{port}/v1/predict",
        {MODEL_SERVER: server, "gateway": gateway},
        environ=environ,
        metrics=(f"http://127.0.0.1:{port}/metrics", f"http://127.0.0.1:{rest}/monitoring/prometheus/metrics"),
    )


def mosec(models: Path) -> System:
    """See peers/mosec_app.py."""
    (port,) = free_ports(1)
    python = str(ROOT / ".venv/bench-mosec/bin/python")
    command = [python, "tests/bench/peers/mosec_app.py", "--address", "127.0.0.1", "--port", str(port)]
    environ = {"MODEL": str(newest(models, "float32"))}
    return System("mosec", f"http://127.0.0.1:{port}/inference", {"app": command}, environ=environ)


def litserve(models: Path) -> System:
    """See peers/litserve_app.py."""
    (port,) = free_ports(1)
    command = [str(ROOT / ".venv/bench-litserve/bin/python"), "tests/bench/peers/litserve_app.py"]
    environ = {"MODEL": str(newest(models, "float32")), "PORT": str(port)}
    url = f"http://127.0.0.1:{port}/predict"
    return System("litserve", url, {"app": command}, body=pictures.multipart, environ=environ, restless=True)


def ceiling(precision: str, models: Path) -> Ceiling:
    """The engine that `whence(precision)` uses."""
    is_int8 = precision == "int8"
    python = ROOT / ".venv" / ("int8" if is_int8 else "serving") / "bin/python"
    engine = "openvino-int8" if is_int8 else "tensorflow"
    version = str(newest(models, precision))
    return Ceiling(f"engine-{precision}", [str(python), "tests/bench/engine.py", engine, precision, version])


def newest(models: Path, precision: str) -> Path:
    """The version directory that a server would choose."""
    versions = [path for path in (models / folder(precision)).glob("*") if path.name.isdecimal()]
    if not versions:
        sys.exit(f"{models / folder(precision)} has no version: run `python -m training export` first")
    return max(versions, key=lambda path: int(path.name))


def folder(precision: str) -> str:
    """Where `python -m training export` writes."""
    return "culture-int8" if precision == "int8" else "culture"
