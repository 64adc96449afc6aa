"""components/canary for real: one model server with two versions, two gateways, each answered by its own."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.deploy.load import PICTURE
from tests.deploy.system import MODELS, SERVING_PYTHON, export_model, gateway_words, process, wait_for
from tests.k8s.manifests import K8S
from tests.system import free_ports

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]
CONFIG = K8S / "components/canary/models.config"
VERSIONS = dict(re.findall(r'key: "(\w+)" value: (\d+)', CONFIG.read_text()))


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs of the gateways by their label."""
    export_model()
    folder = tmp_path_factory.mktemp("canary")
    released = max((MODELS / "culture").glob("[0-9]*"), key=lambda path: int(path.name))
    for version in VERSIONS.values():
        shutil.copytree(released, folder / "culture" / version)
    grpc, rest, *ports = free_ports(4)
    server = ("nice", SERVING_PYTHON, "-m", "serving.server", f"--port={grpc}", f"--rest_api_port={rest}")
    with ExitStack() as stack:
        flags = (f"--model_config_file={CONFIG}", f"--model_base_path={folder / 'culture'}")
        stack.enter_context(process([*server, *flags], folder / "server.log"))
        urls = {}
        for label, port in zip(("stable", "canary"), ports, strict=True):
            urls[label] = f"http://127.0.0.1:{port}"
            environ = {"WHENCE_BACKEND": f"127.0.0.1:{grpc}", "WHENCE_PORT": str(port), "WHENCE_MODEL_LABEL": label}
            stack.enter_context(process(gateway_words(), folder / f"{label}.log", **environ))
        for label, url in urls.items():
            wait_for(f"the {label} gateway", f"{url}/readyz")
        yield urls


@pytest.mark.parametrize("label", ["stable", "canary"])
def test_a_gateway_is_answered_by_the_version_of_its_label(label: str, gateways: dict[str, str]) -> None:
    headers = {"Content-Type": "image/jpeg"}
    answer = httpx.post(f"{gateways[label]}/v1/predict", content=PICTURE.read_bytes(), headers=headers, timeout=20)
    assert int(answer.json()["model"]["version"]) == int(VERSIONS[label]), answer.text
