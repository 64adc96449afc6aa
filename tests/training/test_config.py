"""A run's settings: what is wrong in them, and what `fit --help` says of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.__main__ import main
from training.config import TrainConfig, from_values, load_config, to_values

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


def test_help_of_fit_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("release.toml", "solve the head", "blocks further", "`kept`"):
        assert words in text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("epoch = 3", "unknown settings: epoch"),
        ('labels = ["B", "A"]', "alphabetical"),
        ("views = 0", "at least one"),
        ("views = 1\nconsistency = 0.3", "consistency needs views"),
        ("data =", "Invalid"),
    ],
)
def test_config_says_what_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'data = "pictures"\n{line}\n' if not line.startswith("data") else line)
    with pytest.raises(ValueError, match=complaint):
        load_config(path)


def test_config_survives_being_written_down(tiny_config: TrainConfig) -> None:
    final = replace(tiny_config, measured_by=tiny_config.run)
    assert from_values(json.loads(json.dumps(to_values(final)))) == final
