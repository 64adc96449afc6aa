"""Every setting of the gateway, from WHENCE_* in the environment: name, default, unit, what is accepted, what it does.

`python -m gateway.settings` prints the README's table. A wrong value or an unknown name stops the start.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "WHENCE_"
MIB: Final = 1024 * 1024
_PEM: Final = ("_cert_file", "_key_file", "_ca_file")


class SettingsError(ValueError):
    """A setting that the gateway cannot start with; the message names the variable, its value and what was expected."""


def _setting(default: Any, parse: Callable[[str], Any], expected: str, text: str) -> Any:
    """A dataclass field that knows how to read itself. `parse` raises ValueError for a value that is not `expected`."""
    return field(default=default, metadata={"parse": parse, "expected": expected, "text": text})


def _text(default: str, pattern: str, expected: str, text: str) -> Any:
    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(value)
        return value

    return _setting(default, parse, expected, text)


def _number(kind: Callable[[str], float], name: str, default: float, least: float, most: float, text: str) -> Any:
    def parse(value: str) -> float:
        number = kind(value)
        if not least <= number <= most:  # false for NaN too
            raise ValueError(value)
        return number

    return _setting(default, parse, f"{name} from {least:,} to {most:,}", text)


def _integer(default: int, least: int, most: int, text: str) -> Any:
    return _number(int, "a whole number", default, least, most, text)


def _decimal(default: float, least: float, most: float, text: str) -> Any:
    return _number(float, "a number", default, least, most, text)


def _flag(default: bool, text: str) -> Any:
    return _setting(default, lambda value: {"true": True, "false": False}[value.lower()], "true or false", text)


_PORT: Final = r"(?!0+\b)(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_TARGET: Final = rf"(dns:///)?(?:[^\s,:/]+|\[[0-9a-fA-F:]+\]):{_PORT}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the gateway was told. Names end in their unit."""

    # Where the model is
    backend: str = _text(
        "dns:///localhost:8500",
        rf"({_TARGET})(,({_TARGET}))*",
        "host:port or dns:///host:port, several separated by commas",
        "Model servers (gRPC). Every address behind each name gets its share of the requests",
    )
    model_name: str = _text("culture", r"[\w.-]{1,100}", "a name of letters, digits, `_.-`", "Servable to ask")
    model_label: str = _text(
        "",
        r"[\w.-]{0,100}",
        "a name of letters, digits, `_.-`",
        "Ask for the version with this label (as the model server is configured); empty: the newest one",
    )
    resolve_s: float = _decimal(
        5,
        0.1,
        300,
        "Seconds between two looks at the names in WHENCE_BACKEND: after that long a new server gets traffic",
    )

    # The process
    host: str = _text("0.0.0.0", r"\S+", "an address", "Address to listen on")  # noqa: S104 - a container must
    port: int = _integer(8080, 0, 65535, "Port to listen on")
    workers: int = _integer(1, 1, 64, "Processes; one with many threads is enough, scale by pods")
    threads: int = _integer(
        192, 8, 2000, "Threads of each process, at least WHENCE_MAX_IN_FLIGHT; those above it say no fast"
    )
    log_level: str = _text(
        "info", "debug|info|warning|error", "debug, info, warning or error", "Least level that is logged"
    )

    tracing: bool = _flag(False, "Send OpenTelemetry traces (extra `tracing`); the OTEL_* variables say where to")

    # Who may ask
    api_keys_file: str = _text(
        "", r".*", "a path", "File of API keys (`python -m gateway.keys`); none: everybody may ask"
    )
    rate_limit_per_s: float = _decimal(0, 0, 1e6, "Requests a second that each key (or address) may make; 0: no limit")
    rate_limit_burst: int = _integer(20, 1, 1_000_000, "Requests that each key (or address) may make at once")
    cors_origins: str = _text(
        "",
        r"\*|([a-z]+://[^\s,/]+(,[a-z]+://[^\s,/]+)*)?",
        "origins separated by commas, or *",
        "Sites whose pages may ask",
    )

    # TLS; files in PEM
    tls_cert_file: str = _text("", r".*", "a path", "Certificate chain of the gateway's own port; none: plain HTTP")
    tls_key_file: str = _text("", r".*", "a path", "Its private key")
    tls_client_ca_file: str = _text("", r".*", "a path", "Authority of clients' certificates; when set each needs one")
    backend_ca_file: str = _text("", r".*", "a path", "Authority of the model servers' certificates; none: plain gRPC")
    backend_cert_file: str = _text("", r".*", "a path", "Certificate chain to show to the model servers (mTLS)")
    backend_key_file: str = _text("", r".*", "a path", "Its private key")

    # Time
    request_timeout_s: float = _decimal(10, 0.1, 300, "Budget of a request in seconds, from arrival to answer")
    max_request_timeout_s: float = _decimal(
        30, 0.1, 300, "Greatest budget in seconds that X-Request-Timeout may ask for"
    )
    graceful_timeout_s: int = _integer(40, 1, 3600, "Seconds after SIGTERM until what is not finished is cut off")
    drain_s: float = _decimal(
        2, 0, 300, "Seconds after SIGTERM in which /readyz already says no while all else is answered"
    )
    head_timeout_s: float = _decimal(10, 0.1, 300, "Seconds a client may take to send the head of a request")

    # Size
    max_upload_bytes: int = _integer(20 * MIB, 1024, 1024 * MIB, "Largest picture file, in bytes")
    max_body_bytes: int = _integer(64 * MIB, 1024, 4096 * MIB, "Largest request body, in bytes")
    max_held_bytes: int = _integer(
        192 * MIB,
        1024,
        65536 * MIB,
        "Bytes of uploads and pixels held by all requests together; beyond: 503, or 413 for one alone",
    )
    max_pictures: int = _integer(32, 1, 256, "Most pictures in one request")
    max_pixels: int = _integer(
        50_000_000, 1, 500_000_000, "Largest picture, in pixels; half of it for WebP and AVIF, which take more memory"
    )
    decode_threads: int = _integer(2, 1, 64, "Pictures decoded at once; each may take 4 bytes a pixel and more")

    # Load
    max_in_flight: int = _integer(64, 1, 1000, "Prediction requests worked on at once")
    max_waiting: int = _integer(64, 0, 1000, "Requests that may wait for a place; beyond: 503")
    max_wait_s: float = _decimal(0.05, 0, 10, "Longest wait for a place, in seconds; beyond: 503")

    # Evidence
    index: str = _text(
        "",
        r".*",
        "a folder",
        "Indexes of objects for explain=neighbours, a folder for each model version; none: no neighbours",
    )
    reference: str = _text(
        "",
        r".*",
        "a file",
        "What the release answered on known pictures: the yardstick for drift; none: nothing is compared",
    )

    # What people say
    feedback_database: str = _text(
        "",
        r"(sqlite:///.+|postgres(ql)?://.+)?",
        "sqlite:///PATH or postgresql://...",
        "Where `/v1/feedback` keeps what people say; none: there is no such address",
    )
    feedback_per_minute: int = _integer(30, 1, 100_000, "Judgements a minute that each key (or address) may send")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Settings from WHENCE_*. Raises SettingsError, naming the variable, its value and what was expected."""
        known = {PREFIX + setting.name.upper(): setting for setting in fields(cls)}
        values: dict[str, Any] = {}
        for variable, value in environ.items():
            if not variable.startswith(PREFIX):
                continue
            if variable not in known:
                close = difflib.get_close_matches(variable, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise SettingsError(f"{variable} is no setting of the gateway{hint}")
            setting = known[variable]
            try:
                values[setting.name] = setting.metadata["parse"](value)
            except (ValueError, KeyError) as error:
                raise SettingsError(f"{variable} is {value!r}, expected {setting.metadata['expected']}") from error
        return cls(**values)

    def __post_init__(self) -> None:
        """Check what must hold between two settings."""
        self._require("request_timeout_s", "max_request_timeout_s")
        self._require("max_upload_bytes", "max_body_bytes")
        self._require("max_body_bytes", "max_held_bytes")
        self._require("max_in_flight", "threads")
        for cert, key in (("tls_cert_file", "tls_key_file"), ("backend_cert_file", "backend_key_file")):
            if bool(getattr(self, cert)) != bool(getattr(self, key)):
                raise SettingsError(f"{PREFIX}{cert.upper()} and {PREFIX}{key.upper()} are only good together")
        for name, needed in (("tls_client_ca_file", "tls_cert_file"), ("backend_cert_file", "backend_ca_file")):
            if getattr(self, name) and not getattr(self, needed):
                raise SettingsError(
                    f"{PREFIX}{name.upper()} is {getattr(self, name)!r}, but without {PREFIX}{needed.upper()} there is "
                    "no TLS at all"
                )
        for setting in fields(self):
            if setting.name.endswith(_PEM):
                read_pem(self, setting.name)
        longest = self.drain_s + self.max_request_timeout_s
        if longest >= self.graceful_timeout_s:
            raise SettingsError(
                f"WHENCE_GRACEFUL_TIMEOUT_S is {self.graceful_timeout_s}, expected more than WHENCE_DRAIN_S + "
                f"WHENCE_MAX_REQUEST_TIMEOUT_S = {longest:g}: accepted requests could not finish"
            )

    def _require(self, less: str, more: str) -> None:
        small, large = getattr(self, less), getattr(self, more)
        if small > large:
            names = (PREFIX + less.upper(), PREFIX + more.upper())
            raise SettingsError(f"{names[0]} is {small:,}, expected at most {names[1]}, which is {large:,}")


def read_pem(settings: Settings, name: str) -> bytes | None:
    """The content of the file that the setting `name` names; None when it names none. Raises SettingsError."""
    path = getattr(settings, name)
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise SettingsError(f"{PREFIX}{name.upper()} is {path!r}, expected a readable file: {error}") from error


def markdown() -> str:
    """The table of all settings, as it stands in the README."""
    rows = ["| variable | default | accepted | what it does |", "|---|---|---|---|"]
    for setting in fields(Settings):
        default = "(none)" if setting.default in ("", None) else f"`{setting.default}`"
        expected, text = setting.metadata["expected"], setting.metadata["text"]
        rows.append(f"| `{PREFIX}{setting.name.upper()}` | {default} | {expected} | {text} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
