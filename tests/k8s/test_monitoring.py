"""Rules, alerts and dashboard as text: current, parsed, tested one by one, and naming only metrics that exist.

That every query has an answer is shown against a running system in tests/deploy.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics as GatewayMetrics
from serving.server.metrics import Metrics as ServerMetrics
from tests.k8s.manifests import K8S, ROOT, named, render

RULES = yaml.safe_load((K8S / "monitoring/rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDS = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
DASHBOARD = json.loads((K8S / "monitoring/dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
EXPRESSIONS = [*(rule["expr"] for group in RULES["groups"] for rule in group["rules"]), *QUERIES]
# Of Prometheus itself, the client library, and of the programs that the alerts on quota and certificate need.
FOREIGN = {
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "kube_resourcequota",
    "certmanager_certificate_expiration_timestamp_seconds",
}

names_of_alerts = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def test_what_is_generated_is_current() -> None:
    done = subprocess.run([sys.executable, str(K8S / "monitoring/generate.py"), "--check"], check=False)
    assert done.returncode == 0


def test_the_cluster_gets_the_same_rules_as_compose() -> None:
    assert named(render("cpu"), "PrometheusRule", "whence")["spec"] == RULES


def test_the_cluster_gets_the_same_dashboard() -> None:
    found = named(render("cpu"), "ConfigMap", "whence-dashboard")
    assert json.loads(found["data"]["whence.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def _promtool(*words: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool on PATH (Debian package prometheus)")
    return subprocess.run([promtool, *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", ["rules.test.yaml", "rules.slow.test.yaml"])
def test_alerts_fire_and_do_not_fire(file: str) -> None:
    done = _promtool("test", "rules", file, cwd=ROOT / "tests/k8s")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_with_another_threshold_fails_its_test(tmp_path: Path) -> None:
    broken = (
        (K8S / "monitoring/rules.yaml").read_text().replace("whence:predict_rejected:ratio_rate5m > 0.01", "up > 2")
    )
    (tmp_path / "rules.yaml").write_text(broken)
    cases = (ROOT / "tests/k8s/rules.test.yaml").read_text().replace("../../k8s/monitoring/rules.yaml", "rules.yaml")
    (tmp_path / "cases.yaml").write_text(cases)
    done = _promtool("test", "rules", "cases.yaml", cwd=tmp_path)
    assert done.returncode != 0
    assert "WhenceShedding" in done.stdout + done.stderr


@names_of_alerts
def test_an_alert_has_a_test(alert: dict[str, Any]) -> None:
    cases = "".join(path.read_text() for path in (ROOT / "tests/k8s").glob("rules*.test.yaml"))
    assert f'alertname="{alert["alert"]}"' in cases


@names_of_alerts
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()


@names_of_alerts
def test_the_runbook_of_an_alert_exists(alert: dict[str, Any]) -> None:
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ +(.+)$", (ROOT / file).read_text(), flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_record_is_never_gone_while_the_next_one_is_computed() -> None:
    lookback_m = 5  # Prometheus' --query.lookback-delta; an alert that sees nothing once begins its `for` anew
    assert all(2 * int(group.get("interval", "1m").removesuffix("m")) <= lookback_m for group in RULES["groups"])


def _metrics() -> set[str]:
    """Every name that gateway and model server expose."""
    found = set(FOREIGN) | RECORDS
    for registry in (GatewayMetrics()._registry, ServerMetrics()._registry):
        for family in registry.collect():
            found |= {family.name + suffix for suffix in ("", "_total", "_bucket", "_sum", "_count")}
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_is_promql(query: str) -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser (group deploy) is not installed")
    assert parser.parse(query.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize("query", EXPRESSIONS)
def test_a_query_names_only_what_exists(query: str) -> None:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|by \([^)]*\)|(ignoring|on) \([^)]*\)|\[[^\]]*\]', " ", query)
    names = {name for name in re.findall(r"[a-zA-Z_:][\w:]*", bare) if "_" in name or ":" in name or name == "up"}
    assert names - {"group_left", "histogram_quantile", "max_over_time"} <= _metrics()


def test_a_query_that_is_no_promql_is_found() -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser (group deploy) is not installed")
    with pytest.raises(ValueError, match=r"."):
        parser.parse("sum by (code (rate(x[5m]))")


def test_every_panel_asks_something_of_the_chosen_source() -> None:
    graphs = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["targets"] and panel["datasource"]["uid"] == "${source}" for panel in graphs)


def test_no_two_panels_overlap() -> None:
    places = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
