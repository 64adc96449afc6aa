"""The gateway as it runs in production: gunicorn, in a process of its own."""

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 30.0


class Gateway:
    """gunicorn with the gateway's own configuration, on a free port, with settings of the test."""

    def __init__(
        self,
        log: Path,
        *,
        listen: str = "127.0.0.1",
        tls: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        """`tls` maps names to files for the client's side, `env` is added to the environment."""
        self.log = log
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")}
        environ |= {f"WHENCE_{name.upper()}": str(value) for name, value in settings.items()}
        environ |= env or {}
        environ |= {"WHENCE_HOST": listen, "WHENCE_PORT": "0", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "gunicorn", "-c", "gateway/gunicorn.conf.py", "gateway:create_app()"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
        self.port = self._wait_for_port()
        host = "[::1]" if ":" in listen else listen
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        # One client for all: each new one would read the system's certificates, which takes longer than a request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        verify: ssl.SSLContext | bool = False
        if tls:
            verify = ssl.create_default_context(cafile=tls["ca.pem"])
            verify.load_cert_chain(tls["client.pem"], tls["client.key"])
        self.http = httpx.Client(base_url=self.url, timeout=30, verify=verify, limits=limits)
        self.wait_for_status("/healthz", 200)

    def _wait_for_port(self) -> int:
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            found = re.search(r"Listening at: https?://(?:127\.0\.0\.1|\[::1\]):(\d+)", self.log.read_text())
            if found:
                return int(found[1])
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def wait_for_status(self, path: str, status: int, limit_s: float = START_LIMIT_S) -> float:
        """Ask until the answer is `status`; how many seconds that took."""
        start = time.monotonic()
        while time.monotonic() < start + limit_s:
            try:
                if self.http.get(path, timeout=5).status_code == status:
                    return time.monotonic() - start
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{path} never answered {status}:\n{self.log.read_text()[-3000:]}")

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def memory(self, line: str = "VmRSS") -> float:
        """Memory of the first worker in MB: VmRSS now, VmHWM at its highest."""
        status = Path(f"/proc/{self.workers()[0]}/status").read_text()
        return int(re.search(rf"{line}:\s+(\d+) kB", status)[1]) / 1000  # type: ignore[index]

    def cpu_s(self) -> float:
        """CPU seconds that the first worker has used."""
        fields = Path(f"/proc/{self.workers()[0]}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, limit_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.http.close()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that have `labels`."""
        total = 0.0
        for line in self.http.get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            found, _, rest = sample.partition("{")
            if found == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
                total += float(value)
        return total
