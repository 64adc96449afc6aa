"""Settings: every one read, every wrong one refused by name."""

import dataclasses
import re
from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, markdown


def test_the_defaults_are_good() -> None:
    assert Settings.from_environ({}) == Settings()


def test_every_default_is_a_value_that_would_be_accepted() -> None:
    for field in dataclasses.fields(Settings):
        text = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        assert field.metadata["parse"](text) == field.default, field.name


def test_a_variable_becomes_its_setting() -> None:
    settings = Settings.from_environ({"WHENCE_PORT": "9000", "WHENCE_REQUEST_TIMEOUT_S": "2.5", "HOME": "/"})
    assert (settings.port, settings.request_timeout_s) == (9000, 2.5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WHENCE_PORT", "http"),
        ("WHENCE_PORT", "70000"),
        ("WHENCE_PORT", ""),
        ("WHENCE_REQUEST_TIMEOUT_S", "nan"),
        ("WHENCE_REQUEST_TIMEOUT_S", "-1"),
        ("WHENCE_REQUEST_TIMEOUT_S", "inf"),
        ("WHENCE_LOG_LEVEL", "loud"),
        ("WHENCE_BACKEND", "http://localhost:8500"),
        ("WHENCE_BACKEND", "localhost"),
        ("WHENCE_BACKEND", "localhost:65536"),
        ("WHENCE_BACKEND", "localhost:0"),
        ("WHENCE_MAX_PIXELS", "1e6"),
    ],
)
def test_a_bad_value_stops_the_start_with_name_value_and_expectation(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"{variable} is '{re.escape(value)}', expected .+"):
        Settings.from_environ({variable: value})


def test_an_unknown_variable_stops_the_start_with_a_suggestion() -> None:
    with pytest.raises(SettingsError, match=r"WHENCE_BACKENDS is no setting.*did you mean WHENCE_BACKEND"):
        Settings.from_environ({"WHENCE_BACKENDS": "localhost:8500"})


@pytest.mark.parametrize(
    "backend",
    [
        "localhost:8500",
        "dns:///serving.default.svc:8500",
        "10.0.0.1:8500,10.0.0.2:8500",
        "[::1]:8500",
        "dns:///[fe80::1]:8500",
    ],
)
def test_a_backend_may_be_written_in_many_ways(backend: str) -> None:
    assert Settings.from_environ({"WHENCE_BACKEND": backend}).backend == backend


def test_requests_end_before_the_process_is_made_to() -> None:
    with pytest.raises(SettingsError, match="WHENCE_GRACEFUL_TIMEOUT_S is 20"):
        Settings(graceful_timeout_s=20)
    settings = Settings()
    assert settings.request_timeout_s <= settings.max_request_timeout_s < settings.graceful_timeout_s


def test_a_body_holds_the_largest_picture() -> None:
    with pytest.raises(SettingsError, match="WHENCE_MAX_UPLOAD_BYTES"):
        Settings(max_upload_bytes=10_000, max_body_bytes=5_000)


def test_the_table_names_every_setting() -> None:
    table = markdown()
    for field in dataclasses.fields(Settings):
        assert f"`WHENCE_{field.name.upper()}`" in table


def test_only_settings_reads_the_environment() -> None:
    gateway = Path(__file__).parents[2] / "gateway"
    readers = {path.name for path in gateway.glob("*.py") if "os.environ" in path.read_text()}
    # metrics asks for prometheus_client's own switch, which gunicorn.conf sets; healthcheck runs outside the gateway.
    assert readers <= {"settings.py", "metrics.py", "gunicorn.conf.py", "healthcheck.py", "cli.py"}
