"""Checkers of files, each with a broken copy that it must refuse."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.manifests import K8S, ROOT

pytestmark = pytest.mark.deploy


def run(*words: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """A checker's verdict. Skips where it is not installed."""
    tool = shutil.which(words[0])
    if not tool:
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run([tool, *words[1:]], cwd=cwd, capture_output=True, text=True, check=False)


SCRIPTS = ["install-lock", "model-ready", "quick-precision", "serve-until-term", "trim-base"]


def test_hadolint_accepts_the_dockerfile() -> None:
    done = run("hadolint", "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_hadolint_refuses_a_shell_form(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:12\nCMD sleep 1\n")
    assert run("hadolint", "Dockerfile", cwd=tmp_path).returncode != 0


def test_shellcheck_accepts_the_scripts() -> None:
    scripts = [*(f"k8s/images/{name}" for name in SCRIPTS), "tests/deploy/standins/tensorflow_model_server", ".ci/run"]
    done = run("shellcheck", *scripts)
    assert done.returncode == 0, done.stdout


def test_shellcheck_refuses_an_unquoted_variable(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\nrm -rf $1/*\n")
    assert run("shellcheck", "script", cwd=tmp_path).returncode != 0


@pytest.mark.parametrize(
    ("profiles", "services"),
    [
        ((), {"gateway", "serving", "prometheus"}),
        (("embedded",), {"gateway", "model-server", "prometheus"}),
        (("gpu",), {"gateway", "serving-gpu", "prometheus"}),
        (("train",), {"gateway", "training", "prometheus"}),
    ],
)
def test_compose_starts_what_a_profile_promises(profiles: tuple[str, ...], services: set[str]) -> None:
    chosen = [word for name in profiles for word in ("--profile", name)]
    done = run("docker-compose", *chosen, "config", "--services")
    assert set(done.stdout.split()) == services, done.stderr


def test_compose_reserves_a_card_for_the_gpu_profile() -> None:
    config = yaml.safe_load(run("docker-compose", "--profile", "gpu", "config").stdout)
    (device,) = config["services"]["serving-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_compose_refuses_an_unknown_key(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text().replace("stop_grace_period: 30s", "stop_grace: 30s")
    (tmp_path / "docker-compose.yml").write_text(text)
    assert run("docker-compose", "config", "-q", cwd=tmp_path).returncode != 0


def _prometheus_config(folder: Path) -> Path:
    """Compose's configuration with the rules where promtool finds them."""
    text = (ROOT / "k8s/monitoring/prometheus.yml").read_text().replace("/etc/prometheus/", "")
    shutil.copy(K8S / "monitoring/rules.yaml", folder)
    (folder / "prometheus.yml").write_text(text)
    return folder / "prometheus.yml"


def test_promtool_accepts_prometheus_configuration(tmp_path: Path) -> None:
    done = run("promtool", "check", "config", str(_prometheus_config(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_refuses_a_rule_that_is_no_promql(tmp_path: Path) -> None:
    config = _prometheus_config(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text().replace("absent(up", "absent((up"))
    assert run("promtool", "check", "config", str(config)).returncode != 0


def test_yamllint_accepts_manifests_and_compose() -> None:
    done = run("yamllint", "--strict", "docker-compose.yml", "k8s", "tests/k8s")
    assert done.returncode == 0, done.stdout


def test_make_lint_runs_every_linter_that_it_names() -> None:
    said = re.findall(r"^lint: .*## (.*)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[0].split(", ")
    recipe = run("make", "--dry-run", "--always-make", "lint").stdout
    assert [name for name in said if f".venv/lint/bin/{name} " not in recipe.replace("\n", " ")] == []


def test_yamllint_refuses_a_key_that_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    assert run("yamllint", "twice.yaml", cwd=tmp_path).returncode != 0
