"""Runs a Deployment's pod as a kubelet would: command, environment, user, limits and volumes from the manifest, and
calls its probes. One container, on a Docker network whose names stand in for the cluster's DNS.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from tests.deploy.engine import Docker
from tests.k8s.manifests import Object, container, named, pod

NETWORK = "whence-kubelet"


@dataclass(frozen=True)
class Pod:
    """A running container and the manifest it came from."""

    docker: Docker
    name: str
    workload: Object

    @property
    def address(self) -> str:
        """Its IP address, which the host can reach."""
        networks = self._inspect()["NetworkSettings"]["Networks"]
        return str(networks[NETWORK]["IPAddress"])

    @property
    def exit_status(self) -> int:
        """What the container ended with."""
        return int(self._inspect()["State"]["ExitCode"])

    def log(self) -> str:
        """The end of its output."""
        done = self.docker("logs", "--tail", "50", self.name)
        return done.stdout + done.stderr

    def probe(self, kind: str) -> bool:
        """One call of its startup, readiness or liveness probe."""
        found = container(self.workload)
        probe, ports = found[f"{kind}Probe"], {port["name"]: port["containerPort"] for port in found["ports"]}
        timeout_s = probe["timeoutSeconds"]
        if "httpGet" in probe:
            port = ports[probe["httpGet"]["port"]]
            try:
                url = f"http://{self.address}:{port}{probe['httpGet']['path']}"
                return 200 <= httpx.get(url, timeout=timeout_s).status_code < 400
            except httpx.TransportError:
                return False
        if "grpc" in probe:
            return _grpc_health(f"{self.address}:{probe['grpc']['port']}", timeout_s)
        if "tcpSocket" in probe:
            try:
                socket.create_connection((self.address, ports[probe["tcpSocket"]["port"]]), timeout_s).close()
            except OSError:
                return False
            return True
        return (
            self.docker("exec", self.name, *probe["exec"]["command"], check=False, timeout_s=timeout_s).returncode == 0
        )

    def delete(self) -> float:
        """preStop, SIGTERM, SIGKILL after the grace period. Gives the seconds that it took."""
        begin = time.monotonic()
        hook = container(self.workload).get("lifecycle", {}).get("preStop")
        if hook:
            self.docker("exec", self.name, *hook["exec"]["command"], check=False)
        grace_s = pod(self.workload)["terminationGracePeriodSeconds"] - (time.monotonic() - begin)
        self.docker("stop", "--time", str(int(grace_s)), self.name)
        return time.monotonic() - begin

    def memory_bytes(self) -> int:
        """Resident memory of its largest process."""
        done = self.docker("top", self.name, "-eo", "pid,rss")
        return max(int(line.split()[1]) for line in done.stdout.splitlines()[1:]) * 1024

    def _inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", self.name).stdout)[0]
        return found


@contextmanager
def network(docker: Docker) -> Iterator[None]:
    """The network that pods are on; nothing on it reaches outside."""
    docker("network", "create", "--internal", NETWORK)
    try:
        yield
    finally:
        docker("network", "rm", NETWORK)


@contextmanager
def running(docker: Docker, objects: tuple[Object, ...], name: str, image: str, suffix: str = "") -> Iterator[Pod]:
    """The pod of a Deployment, from `image`, until the end of the block."""
    workload = named(objects, "Deployment", name)
    found = Pod(docker, f"whence-{name}{suffix}", workload)
    docker(
        "run", "--detach", "--name", found.name, *_options(workload, name), image, *container(workload).get("args", [])
    )
    try:
        yield found
    finally:
        docker("rm", "--force", "--volumes", found.name)


def _options(workload: Object, name: str) -> list[str]:
    spec, found = pod(workload), container(workload)
    context, own = spec["securityContext"], found["securityContext"]
    options = ["--network", NETWORK, "--network-alias", f"{name}.whence.svc.cluster.local"]
    options += ["--user", f"{context['runAsUser']}:{context['runAsGroup']}"]
    options += ["--memory", found["resources"]["limits"]["memory"].removesuffix("i")]
    if own["readOnlyRootFilesystem"]:
        options.append("--read-only")
    if not own["allowPrivilegeEscalation"]:
        options += ["--security-opt", "no-new-privileges"]
    options += [word for capability in own["capabilities"]["drop"] for word in ("--cap-drop", capability)]
    options += [word for each in found.get("env", []) for word in ("--env", f"{each['name']}={each['value']}")]
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"]}
    for mount in found["volumeMounts"]:
        size = sizes[mount["name"]].removesuffix("i")
        options += ["--tmpfs", f"{mount['mountPath']}:size={size},uid=0,gid={context['fsGroup']},mode=2775"]
    return options


def _grpc_health(target: str, timeout_s: float) -> bool:
    """Whether grpc.health.v1.Health/Check says SERVING: an empty request, and 1 in field 1 of the answer."""
    with grpc.insecure_channel(target) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(check(b"", timeout=timeout_s) == b"\x08\x01")
        except grpc.RpcError:
            return False
