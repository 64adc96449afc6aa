"""Every variant of the manifests: valid, consistent, and saying what the README promises of it."""

import copy
import json
import re
from collections.abc import Callable

import pytest

from tests.k8s import references, schemas
from tests.k8s.manifests import ROOT, VARIANTS, Object, container, labels, matches, named, of_kind, pod, render

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_a_variant_fits_together(variant: str) -> None:
    assert references.problems(render(variant)) == []


@every_variant
def test_a_variant_is_valid_in_every_release(variant: str) -> None:
    assert schemas.problems(render(variant)) == []


@every_variant
def test_a_variants_custom_resources_are_valid(variant: str) -> None:
    assert schemas.custom_problems(render(variant)) == []


# One planted fault for each check: a checker that never finds anything would pass all of the above.
FAULTS: dict[str, tuple[Callable[[list[Object]], object], str]] = {
    "duplicate": (lambda found: found.append(found[0]), "there twice"),
    "selector": (
        lambda found: named(found, "Deployment", "serving")["spec"]["selector"]["matchLabels"].update(a="b"),
        "does not take its own pods",
    ),
    "account": (lambda found: found.remove(named(found, "ServiceAccount", "gateway")), "no ServiceAccount gateway"),
    "volume": (lambda found: pod(named(found, "Deployment", "serving")).update(volumes=[]), "unknown volume tmp"),
    "tag": (
        lambda found: pod(named(found, "Deployment", "gateway"))["containers"][0].update(image="gateway:latest"),
        "no fixed tag",
    ),
    "resources": (
        lambda found: pod(named(found, "Deployment", "gateway"))["containers"][0].pop("resources"),
        "no requests and memory limit",
    ),
    "probe": (
        lambda found: pod(named(found, "Deployment", "gateway"))["containers"][0]["readinessProbe"]["httpGet"].update(
            port="web"
        ),
        "unknown port web",
    ),
    "no probe": (
        lambda found: pod(named(found, "Deployment", "serving"))["containers"][0].pop("livenessProbe"),
        "no livenessProbe",
    ),
    "service": (
        lambda found: named(found, "Service", "serving")["spec"]["ports"][0].update(targetPort="http2"),
        "has no port http2",
    ),
    "autoscaler": (
        lambda found: named(found, "HorizontalPodAutoscaler", "gateway")["spec"]["scaleTargetRef"].update(name="gate"),
        "scales nothing",
    ),
    "replicas": (lambda found: named(found, "Deployment", "serving")["spec"].update(replicas=2), "undo the scaling"),
    "budget": (
        lambda found: named(found, "PodDisruptionBudget", "serving")["spec"].update(maxUnavailable=0),
        "ever be drained",
    ),
    "policy": (
        lambda found: named(found, "NetworkPolicy", "serving")["spec"]["ingress"][0]["ports"][0].update(port="rpc"),
        "has no port rpc",
    ),
    "monitor": (
        lambda found: named(found, "ServiceMonitor", "gateway")["spec"]["endpoints"][0].update(port="metrics"),
        "no Service has a port metrics",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    plant, words = FAULTS[fault]
    broken = copy.deepcopy(list(render("cpu")))
    plant(broken)
    assert any(words in problem for problem in references.problems(broken))


def test_two_owners_of_one_number_of_pods_are_found() -> None:
    both = [*render("cpu+keda"), *of_kind(render("cpu"), "HorizontalPodAutoscaler")]
    assert any("an autoscaler owns the same pods" in problem for problem in references.problems(both))


def test_a_misspelt_field_of_a_built_in_resource_is_found() -> None:
    broken = copy.deepcopy(list(render("cpu")))
    pod(named(broken, "Deployment", "gateway"))["terminationGracePeriodSecond"] = 60
    assert any("terminationGracePeriodSecond" in problem for problem in schemas.problems(broken))


def test_a_misspelt_field_of_a_custom_resource_is_found() -> None:
    broken = copy.deepcopy(list(render("cpu")))
    named(broken, "PodMonitor", "serving")["spec"]["podMetricsEndpoints"][0]["intervals"] = "15s"
    assert any("intervals" in problem for problem in schemas.custom_problems(broken))


@every_variant
def test_every_container_keeps_to_the_restricted_profile(variant: str) -> None:
    for workload in of_kind(render(variant), "Deployment"):
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert set().union(*(set(volume) - {"name"} for volume in spec["volumes"])) <= {"emptyDir", "configMap"}
        for each in [*spec["containers"], *spec.get("initContainers", [])]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@every_variant
def test_no_service_adds_variables_that_look_like_settings(variant: str) -> None:
    assert all(pod(each)["enableServiceLinks"] is False for each in of_kind(render(variant), "Deployment"))


def test_the_namespace_enforces_the_restricted_profile() -> None:
    found = named(render("cpu"), "Namespace", "whence")["metadata"]["labels"]
    assert found["pod-security.kubernetes.io/enforce"] == "restricted"


@every_variant
def test_probes_have_three_meanings(variant: str) -> None:
    for workload in of_kind(render(variant), "Deployment"):
        found = container(workload)
        assert found["readinessProbe"] != found["livenessProbe"]
        patience = found["startupProbe"]["failureThreshold"] * found["startupProbe"]["periodSeconds"]
        assert patience >= (60 if workload["metadata"]["name"].startswith("gateway") else 300)


@every_variant
def test_a_rollout_is_given_up_no_sooner_than_a_pods_start(variant: str) -> None:
    for workload in of_kind(render(variant), "Deployment"):
        probe, spec = container(workload)["startupProbe"], workload["spec"]
        patience_s = probe["failureThreshold"] * probe["periodSeconds"] + spec.get("minReadySeconds", 0)
        assert patience_s < spec["progressDeadlineSeconds"], workload["metadata"]["name"]


def test_liveness_of_the_gateway_never_asks_the_model() -> None:
    assert container(named(render("cpu"), "Deployment", "gateway"))["livenessProbe"]["httpGet"]["path"] == "/healthz"


@every_variant
def test_the_grpc_service_is_headless(variant: str) -> None:
    assert named(render(variant), "Service", "serving")["spec"]["clusterIP"] == "None"


@every_variant
def test_the_metrics_port_of_the_model_server_is_in_no_service(variant: str) -> None:
    assert [port["port"] for port in named(render(variant), "Service", "serving")["spec"]["ports"]] == [8500]


def _let_in(objects: tuple[Object, ...], target: str, port: str, source: dict[str, str], namespace: str) -> bool:
    """Whether the policies let a pod with labels `source` in `namespace` talk to a port of a Deployment."""
    own = labels(named(objects, "Deployment", target))
    for policy in of_kind(objects, "NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], own):
            continue
        for rule in policy["spec"].get("ingress", []):
            if port not in {each["port"] for each in rule["ports"]}:
                continue
            if "from" not in rule:
                return True
            for peer in rule["from"]:
                where = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": "whence"}})
                in_place = matches(where, {"kubernetes.io/metadata.name": namespace})
                if in_place and matches(peer.get("podSelector", {}), source):
                    return True
    return False


GATEWAY = {"app.kubernetes.io/name": "gateway"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


@pytest.mark.parametrize(
    ("port", "source", "namespace", "allowed"),
    [
        ("grpc", GATEWAY, "whence", True),
        ("grpc", GATEWAY, "elsewhere", False),
        ("grpc", PROMETHEUS, "monitoring", False),
        ("grpc", {}, "whence", False),
        ("metrics", PROMETHEUS, "monitoring", True),
        ("metrics", PROMETHEUS, "elsewhere", False),
        ("metrics", GATEWAY, "whence", False),
    ],
)
def test_who_may_reach_the_model_server(port: str, source: dict[str, str], namespace: str, allowed: bool) -> None:
    assert _let_in(render("cpu"), "serving", port, source, namespace) is allowed


def test_everyone_may_reach_the_gateway() -> None:
    assert _let_in(render("cpu"), "gateway", "http", {}, "elsewhere")


def test_whatever_no_policy_names_is_denied() -> None:
    deny = named(render("cpu"), "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_model_server_may_talk_to_nobody() -> None:
    spec = named(render("cpu"), "NetworkPolicy", "serving")["spec"]
    assert "Egress" in spec["policyTypes"]
    assert "egress" not in spec


def test_the_gateway_may_talk_to_model_servers_and_dns_only() -> None:
    ports = [
        {port["port"] for port in rule["ports"]}
        for rule in named(render("cpu"), "NetworkPolicy", "gateway")["spec"]["egress"]
    ]
    assert ports == [{8500}, {53}]


@every_variant
def test_a_rolling_update_never_takes_a_pod_away_first(variant: str) -> None:
    for workload in of_kind(render(variant), "Deployment"):
        assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@every_variant
def test_everything_at_its_most_fits_into_the_quota(variant: str) -> None:
    objects = render(variant)
    quota = named(objects, "ResourceQuota", "whence")["spec"]["hard"]
    most = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"].get("maxReplicas") or each["spec"]["maxReplicaCount"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for each in of_kind(objects, kind)
    }
    used = dict.fromkeys(("pods", "requests.cpu", "requests.memory", "limits.memory", "requests.nvidia.com/gpu"), 0.0)
    for workload in of_kind(objects, "Deployment"):
        count = most.get(workload["metadata"]["name"]) or workload["spec"]["replicas"]
        count += workload["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        resources = container(workload)["resources"]
        used["pods"] += count
        used["requests.cpu"] += count * _amount(resources["requests"]["cpu"])
        used["requests.memory"] += count * _amount(resources["requests"]["memory"])
        used["limits.memory"] += count * _amount(resources["limits"]["memory"])
        used["requests.nvidia.com/gpu"] += count * _amount(resources["limits"].get("nvidia.com/gpu", 0))
    assert {name: value for name, value in used.items() if name in quota and value > _amount(quota[name])} == {}


def _amount(quantity: str | int) -> float:
    """A quantity as Kubernetes writes it, as a number."""
    text = str(quantity)
    for suffix, factor in (("Gi", 2.0**30), ("Mi", 2.0**20), ("m", 1e-3)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def test_keda_is_as_patient_as_the_autoscalers_that_it_replaces() -> None:
    for each in of_kind(render("cpu"), "HorizontalPodAutoscaler"):
        scaled = named(render("cpu+keda"), "ScaledObject", each["metadata"]["name"])["spec"]
        assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == each["spec"]["behavior"]


def test_keda_replaces_both_autoscalers() -> None:
    objects = render("cpu+keda")
    assert of_kind(objects, "HorizontalPodAutoscaler") == []
    assert {each["metadata"]["name"] for each in of_kind(objects, "ScaledObject")} == {"gateway", "serving"}


def test_a_gpu_pod_asks_for_one_card_and_no_autoscaler_counts_its_cpu() -> None:
    objects = render("gpu")
    assert container(named(objects, "Deployment", "serving"))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [each["metadata"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")] == ["gateway"]


def test_the_embedded_variant_runs_the_embedded_server() -> None:
    found = container(named(render("embedded"), "Deployment", "serving"))
    assert found["image"].startswith("whence/model-server:")
    assert found["args"][:3] == ["python", "-m", "serving.server"]


def test_a_canary_stands_behind_the_one_service() -> None:
    objects = render("cpu+canary")
    selector = {"matchLabels": named(objects, "Service", "gateway")["spec"]["selector"]}
    assert all(matches(selector, labels(named(objects, "Deployment", name))) for name in ("gateway", "gateway-canary"))


def test_a_canary_differs_from_the_stable_gateway_in_its_label_only() -> None:
    objects = render("cpu+canary")
    stable, canary = (container(named(objects, "Deployment", name)) for name in ("gateway", "gateway-canary"))
    assert _settings(stable) ^ _settings(canary) == {("WHENCE_MODEL_LABEL", "stable"), ("WHENCE_MODEL_LABEL", "canary")}
    assert {**stable, "env": None} == {**canary, "env": None}


@pytest.mark.parametrize("variant", ["cpu+canary", "gpu+canary", "embedded+canary"])
def test_a_canary_is_the_version_that_its_image_brings_beside_the_released_one(variant: str) -> None:
    objects = render(variant)
    serving = named(objects, "Deployment", "serving")
    (first,) = pod(serving)["initContainers"]
    mounts = {each["name"]: each["mountPath"] for each in container(serving)["volumeMounts"]}
    data = [each["data"] for each in of_kind(objects, "ConfigMap")]
    config = next(each["models.config"] for each in data if "models.config" in each)
    number = dict(re.findall(r'key: "(\w+)" value: (\d+)', config))
    assert int(number["stable"]) == json.loads((ROOT / "training/release/release.json").read_text())["version"]
    assert first["command"] == ["cp", "-r", f"/models/culture/{number['canary']}/.", "/next"]
    assert mounts["next-model"] == f"/models/culture/{number['canary']}"
    assert first["image"] == f"whence/next-model:{number['canary']}"
    assert "--allow_version_labels_for_unavailable_models=true" in container(serving)["args"]


def test_the_tag_of_the_stable_image_leaves_a_canarys_alone() -> None:
    stable, canary = (("whence/" + name, "registry.example/whence/serving", tag)
                      for name, tag in (("serving", "0.1.0-model8"), ("next-model", "0.1.0-model9")))  # fmt: skip
    serving = named(render("cpu+canary", (stable, canary)), "Deployment", "serving")
    assert pod(serving)["initContainers"][0]["image"] == "registry.example/whence/serving:0.1.0-model9"
    assert container(serving)["image"] == "registry.example/whence/serving:0.1.0-model8"


def test_a_canarys_model_servers_can_be_applied_before_its_gateways() -> None:
    label = {"matchLabels": {"app.kubernetes.io/name": "serving"}}
    chosen = [each for each in render("cpu+canary") if matches(label, each["metadata"].get("labels", {}))]
    assert references.problems(chosen) == []
    assert {"Deployment", "ConfigMap"} <= {each["kind"] for each in chosen}


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "embedded"])
def test_two_versions_never_have_less_memory_than_one(overlay: str) -> None:
    one, two = (
        container(named(render(variant), "Deployment", "serving"))["resources"]
        for variant in (overlay, f"{overlay}+canary")
    )
    for kind in ("requests", "limits"):
        assert _amount(two[kind]["memory"]) >= _amount(one[kind]["memory"]), kind


def _settings(found: Object) -> set[tuple[str, str]]:
    return {(each["name"], each["value"]) for each in found["env"]}


def test_a_canary_is_scaled_by_hand_and_the_stable_gateway_by_its_autoscaler() -> None:
    objects = render("cpu+canary")
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")]
    assert sorted(scaled) == ["gateway", "serving"]
    assert named(objects, "Deployment", "gateway-canary")["spec"]["replicas"] == 1
