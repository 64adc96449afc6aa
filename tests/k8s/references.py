"""What no schema sees: do the objects of a variant fit each other? A check yields a sentence for each thing wrong."""

from collections.abc import Iterable, Iterator

from tests.k8s.manifests import Object, container, labels, matches, of_kind, pod

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def problems(objects: Iterable[Object]) -> list[str]:
    """All that is wrong."""
    found = list(objects)
    checks = (duplicates, pods, services, autoscalers, scaled_objects, budgets, policies, monitors)
    return [problem for check in checks for problem in check(found)]


def duplicates(objects: list[Object]) -> Iterator[str]:
    """The same name twice."""
    seen = set()
    for each in objects:
        key = (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        if key in seen:
            yield f"{key} is there twice"
        seen.add(key)


def pods(objects: list[Object]) -> Iterator[str]:
    """A Deployment against itself and against what it names."""
    for each in of_kind(objects, "Deployment"):
        name, spec = each["metadata"]["name"], pod(each)
        if not matches(each["spec"]["selector"], labels(each)):
            yield f"{name}: the selector does not take its own pods"
        others = [other for other in of_kind(objects, "Deployment") if other is not each]
        if any(matches(each["spec"]["selector"], labels(other)) for other in others):
            yield f"{name}: the selector takes another Deployment's pods"
        accounts = {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
        if spec["serviceAccountName"] not in accounts:
            yield f"{name}: no ServiceAccount {spec['serviceAccountName']}"
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        maps = {found["metadata"]["name"] for found in of_kind(objects, "ConfigMap")}
        for volume in volumes.values():
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                yield f"{name}: no ConfigMap {volume['configMap']['name']}"
        for each_container in [*spec["containers"], *spec.get("initContainers", [])]:
            for mount in each_container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name}: mounts the unknown volume {mount['name']}"
            if ":" not in each_container["image"] or each_container["image"].endswith(":latest"):
                yield f"{name}: the image {each_container['image']} has no fixed tag"
            resources = each_container.get("resources", {})
            asked, limited = resources.get("requests", {}), resources.get("limits", {})
            if not {"cpu", "memory"} <= asked.keys() or "memory" not in limited:
                yield f"{name}: {each_container['name']} has no requests and memory limit"
        yield from _probes(name, container(each))


def _probes(name: str, found: Object) -> Iterator[str]:
    names = {port["name"] for port in found["ports"]}
    numbers = {port["containerPort"] for port in found["ports"]}
    for probe in PROBES:
        if probe not in found:
            yield f"{name}: no {probe}"
            continue
        for kind in ("httpGet", "tcpSocket", "grpc"):
            port = found[probe].get(kind, {}).get("port")
            if port is not None and port not in names | numbers:
                yield f"{name}: the {probe} asks the unknown port {port}"


def services(objects: list[Object]) -> Iterator[str]:
    """A Service and the pods behind it."""
    for each in of_kind(objects, "Service"):
        name, behind = each["metadata"]["name"], _selected(objects, {"matchLabels": each["spec"]["selector"]})
        if not behind:
            yield f"Service {name}: nobody is behind it"
        for port in each["spec"]["ports"]:
            for workload in behind:
                if port["targetPort"] not in {known["name"] for known in container(workload)["ports"]}:
                    yield f"Service {name}: {workload['metadata']['name']} has no port {port['targetPort']}"


def autoscalers(objects: list[Object]) -> Iterator[str]:
    """One owner of each number of pods."""
    for each in of_kind(objects, "HorizontalPodAutoscaler"):
        yield from _scaling(objects, each, each["spec"]["minReplicas"], each["spec"]["maxReplicas"])


def scaled_objects(objects: list[Object]) -> Iterator[str]:
    """The same for KEDA's."""
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")}
    for each in of_kind(objects, "ScaledObject"):
        yield from _scaling(objects, each, each["spec"]["minReplicaCount"], each["spec"]["maxReplicaCount"])
        if each["spec"]["scaleTargetRef"]["name"] in scaled:
            yield f"ScaledObject {each['metadata']['name']}: an autoscaler owns the same pods"


def _scaling(objects: list[Object], scaler: Object, least: int, most: int) -> Iterator[str]:
    name, target = f"{scaler['kind']} {scaler['metadata']['name']}", scaler["spec"]["scaleTargetRef"]["name"]
    found = [each for each in of_kind(objects, "Deployment") if each["metadata"]["name"] == target]
    if not found:
        yield f"{name}: scales nothing, there is no Deployment {target}"
    if any("replicas" in each["spec"] for each in found):
        yield f"{name}: {target} sets replicas too, so every apply would undo the scaling"
    if least > most:
        yield f"{name}: at least {least} and at most {most}"


def budgets(objects: list[Object]) -> Iterator[str]:
    """A disruption budget that covers something and lets a drain go on."""
    for each in of_kind(objects, "PodDisruptionBudget"):
        name = f"PodDisruptionBudget {each['metadata']['name']}"
        if not _selected(objects, each["spec"]["selector"]):
            yield f"{name}: covers no pod"
        if each["spec"].get("maxUnavailable") in (0, "0%") or each["spec"].get("minAvailable") == "100%":
            yield f"{name}: no node could ever be drained"


def policies(objects: list[Object]) -> Iterator[str]:
    """Network policies that cover something and name ports that exist."""
    for each in of_kind(objects, "NetworkPolicy"):
        name, spec = f"NetworkPolicy {each['metadata']['name']}", each["spec"]
        covered = _selected(objects, spec["podSelector"])
        if not covered:
            yield f"{name}: covers no pod"
        for rule in spec.get("ingress", []):
            for port in rule["ports"]:
                for workload in covered:
                    if port["port"] not in {known["name"] for known in container(workload)["ports"]}:
                        yield f"{name}: {workload['metadata']['name']} has no port {port['port']}"


def monitors(objects: list[Object]) -> Iterator[str]:
    """Monitors that find their targets' ports."""
    for each in of_kind(objects, "ServiceMonitor"):
        name, selector = f"ServiceMonitor {each['metadata']['name']}", each["spec"]["selector"]
        found = [one for one in of_kind(objects, "Service") if matches(selector, one["metadata"]["labels"])]
        ports = {port["name"] for service in found for port in service["spec"]["ports"]}
        for end in each["spec"]["endpoints"]:
            if end["port"] not in ports:
                yield f"{name}: no Service has a port {end['port']}"
    for each in of_kind(objects, "PodMonitor"):
        name, behind = f"PodMonitor {each['metadata']['name']}", _selected(objects, each["spec"]["selector"])
        ports = {port["name"] for workload in behind for port in container(workload)["ports"]}
        for end in each["spec"]["podMetricsEndpoints"]:
            if end["port"] not in ports:
                yield f"{name}: no pod has a port {end['port']}"


def _selected(objects: list[Object], selector: Object) -> list[Object]:
    return [each for each in of_kind(objects, "Deployment") if matches(selector, labels(each))]
