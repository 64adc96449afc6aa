"""Everything on one machine without containers: what `make run` and the end-to-end tests start.

Exports the released model if it is not there yet, runs the embedded model server and the gateway as two processes,
starts either again when it dies, and stops the gateway before the model server so that no accepted request is lost.
Standard library only: it is run by the gateway's Python and never imports what it starts.
"""

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving import memory
from serving.contract import MODEL_NAME

LOOPBACK: Final = "127.0.0.1"  # where the model server listens
ROOT: Final = Path(__file__).resolve().parent.parent
INT8: Final = "openvino-int8"
START_LIMIT_S: Final = 180.0  # first answer after a cold start; a few seconds are usual
STOP_LIMIT_S: Final = 45.0  # longer than the gateway's own grace period
LONGEST_PAUSE_S: Final = 30.0  # between two attempts to start a process that keeps dying
NICENESS: Final = 5  # of the model server: a third of the gateway's weight where both want the same core


def main(argv: list[str] | None = None) -> int:
    """Run until a signal comes. Returns the exit status: 0 after a signal, 1 when something did not start."""
    options = _options(argv)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last: its terminal was closed
        if name is not signal.SIGHUP or signal.getsignal(name) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(name, lambda *_: stop.set())
    try:
        _require_free(options.host, options.port)
        _require_free(LOOPBACK, options.grpc_port, options.rest_port)
        _export(options)
        return _serve(options, stop)
    except (RuntimeError, OSError) as error:  # OSError: a Python that is not there
        say(f"could not start: {error}")
        return 1


def give_way(pid: int) -> None:
    """Let the gateway go first: it takes a core for milliseconds, a run of the model for tenths of a second."""
    niceness = min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)
    with suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    # Linux weighs sessions first, where it makes a group of each (sched(7), "the autogroup feature").
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def say(text: str) -> None:
    """One line for the person at the terminal."""
    with suppress(OSError):  # the terminal is gone
        print(f"==> {text}", file=sys.stderr, flush=True)


@dataclass
class Process:
    """A command that is kept running. `pause_s` doubles with each death and is forgotten after a calm minute."""

    name: str
    command: list[str]
    environ: Mapping[str, str]
    gives_way: bool = False
    child: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause_s: float = 0.5
    due: float = field(default=0.0)

    def keep_running(self) -> None:
        """Start the command if it does not run and its pause is over; say so when it has died."""
        now = time.monotonic()
        if self.child and self.child.poll() is not None:
            self.pause_s = 0.5 if now - self.started > 60 else min(2 * self.pause_s, LONGEST_PAUSE_S)
            say(f"the {self.name} ended ({_reason(self.child.returncode)}); starting it again in {self.pause_s:g} s")
            self.child, self.due = None, now + self.pause_s
        if self.child is None and now >= self.due:
            self.started = now
            # A session of its own: Ctrl-C reaches this process alone, which then stops the two in the right order.
            self.child = subprocess.Popen(self.command, cwd=ROOT, env=dict(self.environ), start_new_session=True)
            if self.gives_way:
                give_way(self.child.pid)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if it does not end in time."""
        if not self.child or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            say(f"the {self.name} did not stop within {STOP_LIMIT_S:g} s: killed")
            self.child.kill()
            self.child.wait()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.local", description=__doc__.split("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="address of page and API (default %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port of page and API (default %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8500, help="the model server's gRPC port, loopback only")
    parser.add_argument("--rest-port", type=int, default=8501, help="the model server's status and metrics port")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="where exported models are (%(default)s)")
    parser.add_argument(
        "--engine", choices=("tensorflow", INT8), default="tensorflow", help="what computes (default %(default)s)"
    )
    parser.add_argument("--mixed-precision", default="auto", help="auto, bfloat16 or none (default %(default)s)")
    parser.add_argument("--gateway-python", type=Path, default=ROOT / ".venv/gateway/bin/python")
    parser.add_argument("--serving-python", type=Path, help="default: that of .venv/serving, or of .venv/int8")
    options = parser.parse_args(argv)
    is_int8 = options.engine == INT8
    options.precision, options.folder = ("int8", f"{MODEL_NAME}-int8") if is_int8 else ("float32", MODEL_NAME)
    options.serving_python = (
        options.serving_python or ROOT / ".venv" / ("int8" if is_int8 else "serving") / "bin/python"
    )
    return options


def _require_free(host: str, *ports: int) -> None:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise RuntimeError(f"port {port} of {host} cannot be used ({error.strerror}); see --help") from error


def _export(options: argparse.Namespace) -> None:
    release = json.loads((ROOT / "training/release/release.json").read_text())
    version = options.models / options.folder / str(release["version"])
    if version.is_dir():
        return
    say(f"exporting the released model to {version.relative_to(ROOT) if version.is_relative_to(ROOT) else version}")
    command = [str(options.serving_python), "-m", "training", "export", "--models", str(options.models)]
    command += ["--precision", options.precision]
    # TensorFlow talks a lot while it starts: shown only when it did not work.
    done = subprocess.run(command, cwd=ROOT, env=_environ(), check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the export of the released model failed ({_reason(done.returncode)}):\n{done.stderr}")


def _serve(options: argparse.Namespace, stop: threading.Event) -> int:
    url = f"{'https' if os.environ.get('WHENCE_TLS_CERT_FILE') else 'http'}://{options.host}:{options.port}"
    model = f"http://{LOOPBACK}:{options.rest_port}/v1/models/{MODEL_NAME}"
    server, gateway = _model_server(options), _gateway(options)
    begin = time.monotonic()
    ready = False
    say("starting the model server (embedded, gRPC) and the gateway")
    try:
        while not stop.wait(0.5):
            server.keep_running()
            gateway.keep_running()
            if ready:
                continue
            # The model first: a gateway that is asked before logs that it is not ready, and a start is no fault.
            ready = "AVAILABLE" in _answer(model) and _is_ready(url, options)
            if ready:
                say(f"Whence is ready after {time.monotonic() - begin:.1f} s: {url}   (Ctrl-C ends it)")
            elif time.monotonic() - begin > START_LIMIT_S:
                raise RuntimeError(f"{url} is not ready within {START_LIMIT_S:g} s; the lines above say why")
        say("stopping: the gateway finishes what it accepted, then the model server")
        return 0
    finally:
        gateway.stop()
        server.stop()


def _model_server(options: argparse.Namespace) -> Process:
    flags = {
        "--port": options.grpc_port,
        "--rest_api_port": options.rest_port,
        "--model_config_file": "serving/models.config",
        "--model_base_path": options.models / options.folder,
        "--batching_parameters_file": "serving/batching.config",
        "--monitoring_config_file": "serving/monitoring.config",
        "--engine": options.engine,
        "--mixed_precision": options.mixed_precision,
    }
    words = [f"{name}={value}" for name, value in flags.items()]
    command = [str(options.serving_python), "-m", "serving.server", *words]
    return Process("model server", command, memory.HUGE_PAGES | _environ(), gives_way=True)


def _gateway(options: argparse.Namespace) -> Process:
    command = [str(options.gateway_python), "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py"]
    bind = ["--bind", f"{options.host}:{options.port}", "gateway:create_app()"]
    # What the person set stands; the rest of the settings are the defaults that the README lists.
    release = ROOT / "training/release"
    defaults = {
        "WHENCE_BACKEND": f"dns:///{LOOPBACK}:{options.grpc_port}",
        "WHENCE_LOG_LEVEL": "warning",
        "WHENCE_INDEX": str(release / "index"),
        "WHENCE_FEEDBACK_DATABASE": f"sqlite:///{ROOT / 'var/feedback.sqlite3'}",
    }
    if (release / "reference.json").exists():  # not there while a release is being made
        defaults["WHENCE_REFERENCE"] = str(release / "reference.json")
    return Process("gateway", command + bind, defaults | _environ())


def _environ() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _is_ready(url: str, options: argparse.Namespace) -> bool:
    if not os.environ.get("WHENCE_TLS_CLIENT_CA_FILE"):
        return bool(_answer(f"{url}/readyz"))
    try:  # we have no certificate to ask with
        socket.create_connection((options.host, options.port), timeout=2).close()
    except OSError:
        return False
    return True


def _answer(url: str) -> str:
    """What a 200 says; empty for anything else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # our own process, under whatever name it has
    no_proxy = urllib.request.ProxyHandler({})  # those of the environment are not meant for it
    opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as reply:
            return str(reply.read(), "utf-8", "replace") if reply.status == 200 else ""
    except (urllib.error.URLError, OSError):
        return ""


def _reason(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


if __name__ == "__main__":
    sys.exit(main())
