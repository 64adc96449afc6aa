"""The engine and the images, made once."""

from collections.abc import Iterator

import pytest

from tests.deploy.engine import SERVING_IMAGE, Docker, engine, provide_bases
from tests.k8s.manifests import ROOT

STANDINS = ROOT / "tests/deploy/standins"


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with engine() as found:
        provide_bases(found)
        yield found


@pytest.fixture(scope="session")
def gateway_image(docker: Docker) -> str:
    docker.build("whence/gateway:test", "--target", "gateway")
    return "whence/gateway:test"


@pytest.fixture(scope="session")
def model_server_image(docker: Docker) -> str:
    docker.build("whence/model-server:test", "--target", "model-server")
    return "whence/model-server:test"


@pytest.fixture(scope="session")
def serving_image(docker: Docker, model_server_image: str) -> str:
    """The `serving` target, on a stand-in for TensorFlow Serving's image where that cannot be had."""
    if not docker.has_real(SERVING_IMAGE):
        docker.build(SERVING_IMAGE, "--file", str(STANDINS / "tensorflow-serving.Dockerfile"), context=STANDINS)
    docker.build("whence/serving:test", "--target", "serving")
    return "whence/serving:test"
