"""The OpenAPI document is true: a fuzzer that has read it asks the running gateway."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway import explanations
from gateway.errors import KINDS
from gateway.keys import new_key
from tests.explaining import explaining
from tests.fakes import FaultyModelServer
from tests.gateway.conftest import picture
from tests.gateway.processes import Gateway

CONFIG = Path(__file__).parent / "schemathesis.toml"


def test_the_running_gateway_answers_as_documented(
    start: Callable[..., Gateway], server: FaultyModelServer, tmp_path: Path
) -> None:
    server.behaviour = explaining
    database = f"sqlite:///{tmp_path}/feedback.sqlite3"
    gateway = start(feedback_database=database, feedback_per_minute=10_000)
    command = [
        str(Path(sys.executable).parent / "schemathesis"), f"--config-file={CONFIG}",
        "run", f"{gateway.url}/openapi.json",
        "--max-examples=25", "--seed=1", "--workers=2", "--phases=examples,coverage,fuzzing", "--request-timeout=20",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
        "response_schema_conformance,unsupported_method",
        "--generation-database=none", "--no-color",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert gateway.http.post("/v1/predict", content=picture()).status_code == 200


def test_a_prediction_is_what_the_document_says(http: FlaskClient) -> None:
    document = http.get("/openapi.json").get_json()
    schema = {"$ref": "#/components/schemas/Predictions", "components": document["components"]}
    jsonschema.validate(http.post("/v1/predict", data=picture()).get_json(), schema)


def test_limits_and_keys_are_those_of_the_settings(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(new_key("catalogue")[1])
    app = make_app(max_pictures=64, api_keys_file=str(tmp_path / "keys"))
    told = app.test_client().get("/openapi.json").get_json()
    assert told["components"]["schemas"]["Images"]["properties"]["images"]["maxItems"] == 64
    assert told["paths"]["/v1/predict"]["post"]["security"] == [{"Bearer": []}, {"Key": []}]
    assert told["components"]["securitySchemes"].keys() == {"Bearer", "Key"}
    assert "security" not in told["paths"]["/healthz"]["get"]


def test_the_page_names_the_values_that_a_parameter_may_have(http: FlaskClient) -> None:
    page = http.get("/docs").text
    assert all(f"<code>{kind}</code>" in page for kind in explanations.KINDS)


def test_every_problem_type_is_in_the_document(http: FlaskClient) -> None:
    schema = http.get("/openapi.json").get_json()["components"]["schemas"]["Problem"]
    assert schema["properties"]["type"]["enum"] == [f"/problems/{kind.slug}" for kind in KINDS]


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_need_nothing_from_elsewhere(http: FlaskClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", re.sub(r"<a [^>]*>", "", answer.text))
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
