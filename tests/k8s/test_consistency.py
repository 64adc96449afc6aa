"""Ports, paths, users, settings, times and versions: said in several files, and the same in all of them."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from gateway.app import create_app
from gateway.settings import Settings
from serving import contract, memory
from tests.k8s.manifests import K8S, ROOT, VARIANTS, Object, container, named, of_kind, pod, render

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS = Settings()


def _target(name: str) -> str:
    """The instructions of a Dockerfile target."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def _words(target: str, instruction: str) -> list[str]:
    """The words of an exec-form instruction."""
    found = re.findall(rf"^{instruction} (\[.*\])$", _target(target), flags=re.MULTILINE)
    assert found, f"{target} has no {instruction} in exec form"
    words: list[str] = json.loads(found[-1])
    return words


def _gateways() -> list[Object]:
    return [each for variant in VARIANTS for each in of_kind(render(variant), "Deployment") if "8080" in str(each)]


def test_the_gateways_port_is_the_same_everywhere() -> None:
    assert f"EXPOSE {SETTINGS.port}" in _target("gateway")
    assert SERVICES["gateway"]["ports"] == [f"${{HTTP_PORT:-8080}}:{SETTINGS.port}"]
    assert {container(each)["ports"][0]["containerPort"] for each in _gateways()} == {SETTINGS.port}
    assert f'"WHENCE_PORT", "{SETTINGS.port}"' in (ROOT / "gateway/healthcheck.py").read_text()


def test_the_model_servers_ports_are_the_same_everywhere() -> None:
    for target in ("serving", "model-server"):
        assert "EXPOSE 8500 8501" in _target(target)
        assert {"--port=8500", "--rest_api_port=8501"} <= set(_words(target, "CMD"))
    for variant in VARIANTS:
        found = container(named(render(variant), "Deployment", "serving"))
        assert {port["name"]: port["containerPort"] for port in found["ports"]} == {"grpc": 8500, "metrics": 8501}
        assert {"--port=8500", "--rest_api_port=8501"} <= set(found["args"])


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_cluster_starts_the_model_server_as_its_image_does(variant: str) -> None:
    args = container(named(render(variant), "Deployment", "serving"))["args"]
    assert [word for word in args if "parallelism" not in word] == _words("serving", "CMD")


def test_the_cluster_starts_the_embedded_server_as_its_image_does() -> None:
    args = container(named(render("embedded"), "Deployment", "serving"))["args"]
    drain = {word for word in args if word.startswith(("--drain_seconds", "--grace_seconds"))}
    assert [word for word in args if word not in drain] == _words("model-server", "CMD")


def test_the_model_is_where_the_images_and_the_configuration_say() -> None:
    config = (ROOT / "serving/models.config").read_text()
    assert f'name: "{contract.MODEL_NAME}"' in config
    assert f'base_path: "/models/{contract.MODEL_NAME}"' in config
    assert "COPY --from=export /models/ /models/" in _target("serving")


def test_the_canarys_configuration_differs_in_its_versions_only() -> None:
    def rest(text: str) -> list[str]:
        lines = (line.split("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line and "version" not in line]

    canary = (K8S / "components/canary/models.config").read_text()
    assert rest(canary) == rest((ROOT / "serving/models.config").read_text())


def test_a_canarys_labels_are_in_its_configuration() -> None:
    config = (K8S / "components/canary/models.config").read_text()
    labels = set(re.findall(r'version_labels \{ key: "(\w+)"', config))
    asked = {
        each["value"]
        for workload in of_kind(render("cpu+canary"), "Deployment")
        for each in container(workload)["env"]
        if each["name"] == "WHENCE_MODEL_LABEL"
    }
    assert asked == labels == {"stable", "canary"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_path_that_is_asked_exists(path: str) -> None:
    source = "".join(file.read_text() for file in (ROOT / "gateway").glob("*.py") if file.name != "healthcheck.py")
    assert f'"{path}"' in source
    assert path in "".join(json.dumps(each) for each in render("cpu")) + (ROOT / "gateway/healthcheck.py").read_text()


def test_the_model_servers_metrics_are_asked_where_they_are() -> None:
    (path,) = re.findall(r'path: "([^"]+)"', (ROOT / "serving/monitoring.config").read_text())
    monitor = named(render("cpu"), "PodMonitor", "serving")["spec"]["podMetricsEndpoints"][0]
    jobs = yaml.safe_load((ROOT / "k8s/monitoring/prometheus.yml").read_text())["scrape_configs"]
    assert monitor["path"] == path
    assert path in {job.get("metrics_path") for job in jobs}


def test_compose_and_cluster_name_their_targets_alike() -> None:
    jobs = yaml.safe_load((ROOT / "k8s/monitoring/prometheus.yml").read_text())["scrape_configs"]
    monitors = [
        named(render("cpu"), "ServiceMonitor", "gateway")["spec"]["endpoints"][0],
        named(render("cpu"), "PodMonitor", "serving")["spec"]["podMetricsEndpoints"][0],
    ]
    assert [job["job_name"] for job in jobs] == [end["relabelings"][0]["replacement"] for end in monitors]


def test_everything_of_ours_runs_as_one_user() -> None:
    users = {re.findall(r"^USER (\S+)$", _target(name), flags=re.MULTILINE)[-1] for name in ("runtime", "serving")}
    users |= {str(service["user"]) for name, service in SERVICES.items() if name not in ("prometheus", "training")}
    for variant in VARIANTS:
        for workload in of_kind(render(variant), "Deployment"):
            context = pod(workload)["securityContext"]
            users.add(f"{context['runAsUser']}:{context['runAsGroup']}")
    assert users == {"10001:10001"}


def test_the_embedded_model_server_asks_for_huge_pages_as_under_make_run() -> None:
    (name, value), *_ = memory.HUGE_PAGES.items()
    assert f"{name}={value}" in _target("model-server")


def test_every_setting_that_is_set_exists() -> None:
    given = dict(SERVICES["gateway"]["environment"])
    for workload in _gateways():
        given |= {each["name"]: each["value"] for each in container(workload)["env"]}
    assert Settings.from_environ({name: value for name, value in given.items() if name.startswith("WHENCE_")})


def test_every_setting_that_is_talked_about_exists() -> None:
    files = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", *(K8S / "images").iterdir(), *K8S.rglob("*.yaml")]
    said = set(re.findall(r"\bWHENCE_[A-Z_]+[A-Z]\b", "".join(file.read_text() for file in files if file.is_file())))
    assert said <= {f"WHENCE_{name.upper()}" for name in Settings.__dataclass_fields__}


def test_a_gateway_pod_outlives_its_last_request() -> None:
    for workload in _gateways():
        before_s = float(container(workload)["lifecycle"]["preStop"]["exec"]["command"][1])
        assert before_s + SETTINGS.graceful_timeout_s < pod(workload)["terminationGracePeriodSeconds"]


def test_a_gateway_container_outlives_its_last_request() -> None:
    assert SETTINGS.graceful_timeout_s < _seconds(SERVICES["gateway"]["stop_grace_period"])


DNS_CACHE_S = 30  # the greatest common one: `ttl 30` in kubeadm's Corefile


def test_a_model_server_drains_longer_than_gateways_take_to_leave_it() -> None:
    environment = {
        each["name"]: each["value"] for each in container(named(render("cpu"), "Deployment", "serving"))["env"]
    }
    drain_s = float(environment["DRAIN_SECONDS"])
    # address dropped (look into DNS, DNS cache of the cluster), then the last request to it ends
    assert SETTINGS.resolve_s + DNS_CACHE_S + SETTINGS.max_request_timeout_s < drain_s
    assert drain_s < pod(named(render("cpu"), "Deployment", "serving"))["terminationGracePeriodSeconds"]


def test_model_servers_have_as_many_threads_as_they_ask_for_cores() -> None:
    for variant in ("cpu", "embedded"):
        found = container(named(render(variant), "Deployment", "serving"))
        flags = dict(word.removeprefix("--").split("=") for word in found["args"] if "=" in word)
        threads = flags.get("tensorflow_intra_op_parallelism") or found["resources"]["limits"]["cpu"]
        assert threads == found["resources"]["requests"]["cpu"]


def test_the_embedded_server_drains_longer_than_gateways_take_to_leave_it() -> None:
    workload = named(render("embedded"), "Deployment", "serving")
    flags = dict(word.removeprefix("--").split("=") for word in container(workload)["args"] if "=" in word)
    assert SETTINGS.resolve_s + DNS_CACHE_S < float(flags["drain_seconds"])
    assert SETTINGS.max_request_timeout_s < float(flags["grace_seconds"])
    total_s = float(flags["drain_seconds"]) + float(flags["grace_seconds"])
    assert total_s < pod(workload)["terminationGracePeriodSeconds"]


def test_a_probe_waits_longer_than_readiness_may_take() -> None:
    longest_s = float(re.findall(r"LOOK_TIMEOUT_S: Final = ([\d.]+)", (ROOT / "gateway/health.py").read_text())[0])
    assert longest_s < container(named(render("cpu"), "Deployment", "gateway"))["readinessProbe"]["timeoutSeconds"]
    assert longest_s < float(re.findall(r"TIMEOUT_S: Final = (\d+)", (ROOT / "gateway/healthcheck.py").read_text())[0])


def test_the_ingress_lets_through_what_the_gateway_accepts() -> None:
    notes = named(render("cpu+ingress"), "Ingress", "gateway")["metadata"]["annotations"]
    size = int(notes["nginx.ingress.kubernetes.io/proxy-body-size"].removesuffix("m")) * 2**20
    assert size >= SETTINGS.max_body_bytes
    assert float(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > SETTINGS.max_request_timeout_s


def test_the_ingress_publishes_what_clients_use_and_nothing_of_the_clusters() -> None:
    (rule,) = named(render("cpu+ingress"), "Ingress", "gateway")["spec"]["rules"]
    published = [(each["pathType"], each["path"]) for each in rule["http"]["paths"]]
    for route in create_app(SETTINGS).url_map.iter_rules():
        path = route.rule.rstrip("/") or "/"
        found = any(path == known or (kind == "Prefix" and path.startswith(f"{known}/")) for kind, known in published)
        assert found == (path not in ("/metrics", "/healthz", "/readyz")), path


def test_keda_adds_a_gateway_before_one_is_full() -> None:
    threshold = named(render("cpu+keda"), "ScaledObject", "gateway")["spec"]["triggers"][0]["metadata"]["threshold"]
    assert float(threshold) < SETTINGS.max_in_flight


def test_large_uploads_fit_into_the_memory_of_a_pod() -> None:
    limit = container(named(render("cpu"), "Deployment", "gateway"))["resources"]["limits"]["memory"]
    pixels = SETTINGS.decode_threads * SETTINGS.max_pixels * 4
    assert SETTINGS.max_held_bytes + pixels < int(limit.removesuffix("Mi")) * 2**20


def test_the_projects_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in DOCKERFILE
    tags = set(re.findall(r"\$\{IMAGE_TAG:-([^}]+)\}", (ROOT / "docker-compose.yml").read_text()))
    for variant in VARIANTS:
        tags |= {container(each)["image"].partition(":")[2] for each in of_kind(render(variant), "Deployment")}
    tags = {tag.removesuffix("-int8") for tag in tags}
    assert tags == {version}


def test_compose_publishes_the_gateway_and_prometheus_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"gateway", "prometheus"}
    assert all(port.startswith("127.0.0.1:") for port in published["prometheus"])


def test_compose_hardens_every_container() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "memory" in service["deploy"]["resources"]["limits"], name


def test_no_image_is_fetched_for_the_dockerfiles_own_sake() -> None:
    assert not DOCKERFILE.startswith("# syntax")


def _seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))
