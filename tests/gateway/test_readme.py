"""The README's tables are what the code says of itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GENERATED = re.findall(r"<!-- python -m ([\w.]+) -->\n(.*?)<!-- end -->", README, re.DOTALL)


@pytest.mark.parametrize(("module", "table"), GENERATED, ids=[module for module, _ in GENERATED])
def test_readme_table_is_what_the_module_prints(module: str, table: str) -> None:
    printed = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)
    assert table.strip() == printed.stdout.strip()


def test_readme_has_the_tables_of_settings_problems_and_metrics() -> None:
    assert [module for module, _ in GENERATED] == ["gateway.errors", "gateway.settings", "gateway.metrics"]


def test_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z0-9-]*)", README))
    assert named
    assert named <= targets


def test_readme_runs_modules_that_exist_and_no_file_of_a_package_by_its_path() -> None:
    modules = set(re.findall(r"python -m ((?:gateway|serving|training|tests)(?:\.\w+)*)(?!\w|\.)", README))
    assert {"gateway.cli", "serving.server", "tests.bench.gpu", "training"} <= modules
    paths = [ROOT / module.replace(".", "/") for module in modules]
    assert [path for path in paths if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists())] == []
    assert re.findall(r"python \S+\.py", README) == []  # so started it does not find the other packages


def test_readme_links_to_files_that_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
