"""`make run` without what it starts: two stand-ins that live, and say that the model is there and the gateway ready."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.local import NICENESS
from serving.memory import HUGE_PAGES
from tests.serving.running import free_port, wait_until

ROOT = Path(__file__).parents[2]

STAND_IN = """\
import http.server, os, pathlib, ssl, sys
folder = pathlib.Path(__file__).parent
(folder / f"{os.getpid()}.pid").touch()
flags = dict(word.split("=", 1) for word in sys.argv if "=" in word)
is_gateway = "--bind" in sys.argv
(folder / ("gateway" if is_gateway else "server")).write_text(str(os.getpid()))
if not is_gateway:
    (folder / "tunables").write_text(os.environ.get("GLIBC_TUNABLES", ""))

class Stand(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if is_gateway:
            (folder / "asked").touch()
        self.wfile.write(b"LOADING" if (folder / "loading").exists() else b"AVAILABLE")

bind = sys.argv[sys.argv.index("--bind") + 1] if is_gateway else "127.0.0.1:" + flags["--rest_api_port"]
host, port = bind.split(":")
server = http.server.HTTPServer((host, int(port)), Stand)
if is_gateway and (certificate := os.environ.get("WHENCE_TLS_CERT_FILE")):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, os.environ["WHENCE_TLS_KEY_FILE"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class Launched:
    """A running `python -m serving.local`."""

    def __init__(self, popen: subprocess.Popen[bytes], folder: Path) -> None:
        self.popen, self.folder = popen, folder

    @property
    def said(self) -> str:
        """What it has written so far."""
        return (self.folder / "log").read_text()

    @property
    def children(self) -> list[int]:
        """Process ids of the stand-ins that have been started."""
        return [int(path.stem) for path in self.folder.glob("*.pid")]


@contextmanager
def launched(folder: Path, *argv: str, before: tuple[str, ...] = (), **environ: str) -> Iterator[Launched]:
    """`before` is a command that runs it, such as nohup."""
    release = json.loads((ROOT / "training/release/release.json").read_text())
    (folder / "models/culture" / str(release["version"])).mkdir(parents=True)  # exported already
    stand_in = folder / "stand-in"
    stand_in.write_text(f"#!{sys.executable}\n{STAND_IN}")
    stand_in.chmod(0o755)
    options = {
        "--port": free_port(), "--grpc-port": free_port(), "--rest-port": free_port(), "--models": folder / "models",
        "--gateway-python": stand_in, "--serving-python": stand_in,
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in options.items()]
    with (folder / "log").open("wb") as log:
        handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        popen = subprocess.Popen(
            [*before, sys.executable, "-m", "serving.local", *words, *argv],
            cwd=ROOT, env=os.environ | environ, stdout=log, stderr=log,
        )  # fmt: skip
        signal.signal(signal.SIGHUP, handler)
    one = Launched(popen, folder)
    try:
        yield one
    finally:
        popen.terminate()
        popen.wait(30)
        for child in one.children:
            if is_running(child):
                os.kill(child, signal.SIGKILL)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_what_ends_it_ends_what_it_started(tmp_path: Path, name: str) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: len(one.children) == 2, "both run")
        one.popen.send_signal(signal.Signals[name])
        assert one.popen.wait(30) == 0
        assert not any(map(is_running, one.children))


def test_nohup_keeps_it_running_when_the_terminal_is_closed(tmp_path: Path) -> None:
    with launched(tmp_path, before=("nohup",)) as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")
        one.popen.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            one.popen.wait(1.5)


def test_the_gateway_goes_before_the_model_server(tmp_path: Path) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")
        gateway, server = (int((tmp_path / name).read_text()) for name in ("gateway", "server"))
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        behind = min(mine + NICENESS, 19)
        assert [os.getpriority(os.PRIO_PROCESS, each) for each in (gateway, server)] == [mine, behind]
        group = Path(f"/proc/{server}/autogroup")  # "/autogroup-12 nice 5", where the kernel has it
        assert not group.exists() or group.read_text().split()[-1] == str(behind)


@pytest.mark.parametrize("mine", [None, "glibc.malloc.hugetlb=0"])
def test_the_model_server_asks_for_huge_pages_unless_told_otherwise(tmp_path: Path, mine: str | None) -> None:
    with launched(tmp_path, **({"GLIBC_TUNABLES": mine} if mine else {})) as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")
        assert (tmp_path / "tunables").read_text() == (mine or HUGE_PAGES["GLIBC_TUNABLES"])


def certificate(folder: Path) -> dict[str, str]:
    """Settings of TLS, with a certificate that nobody trusts."""
    request = "req -x509 -newkey rsa:2048 -nodes -subj /CN=somewhere.example -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *request.split()], cwd=folder, check=True, capture_output=True)
    return {"WHENCE_TLS_CERT_FILE": str(folder / "cert.pem"), "WHENCE_TLS_KEY_FILE": str(folder / "key.pem")}


def test_it_is_ready_with_tls_too(tmp_path: Path) -> None:
    with launched(tmp_path, **certificate(tmp_path)) as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")
        assert ": https://127.0.0.1:" in one.said


def test_a_proxy_of_the_environment_is_not_asked_for_it(tmp_path: Path) -> None:
    with launched(tmp_path, http_proxy="http://127.0.0.1:9", no_proxy="") as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")


def test_where_clients_need_certificates_it_is_ready_when_the_gateway_listens(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    with launched(tmp_path, **files, WHENCE_TLS_CLIENT_CA_FILE=files["WHENCE_TLS_CERT_FILE"]) as one:
        wait_until(lambda: "is ready" in one.said, "it is ready")


def test_the_gateway_is_not_asked_before_the_model_is_available(tmp_path: Path) -> None:
    (tmp_path / "loading").touch()
    with launched(tmp_path) as one:
        wait_until(lambda: len(one.children) == 2, "both run")
        time.sleep(2)  # four looks
        assert "is ready" not in one.said
        assert not (tmp_path / "asked").exists()
        (tmp_path / "loading").unlink()
        wait_until(lambda: "is ready" in one.said, "it is ready")
        assert (tmp_path / "asked").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_the_model_servers_ports_are_looked_for_where_it_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with launched(tmp_path, "--host=127.0.0.2", f"--grpc-port={port}") as one:
            assert one.popen.wait(30) == 1
            assert f"could not start: port {port} of 127.0.0.1 cannot be used" in one.said


def test_a_python_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    with launched(tmp_path, "--gateway-python=/nowhere/python") as one:
        assert one.popen.wait(30) == 1
        assert "could not start: [Errno 2] No such file or directory: '/nowhere/python'" in one.said
        assert "Traceback" not in one.said
