"""Reads TensorFlow Serving's three configuration files. A wrong one stops the start and says which value is wrong."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from serving.server.wire import config_pb2

LEAST_ROWS: Final = 4  # of a full narrow run; with fewer, what a run costs whatever its rows would show
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"  # TensorFlow Serving's default, prometheus_exporter.cc

_AnyMessage = TypeVar("_AnyMessage", bound=Message)


class ConfigError(Exception):
    """A flag or a file that the server cannot start with: names it, its value, and what was expected."""


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the version directories to serve: the `latest` n, the `specific` ones, or, with neither, all."""

    latest: int | None = 1
    specific: frozenset[int] = frozenset()

    def choose(self, present: set[int]) -> set[int]:
        """The versions to serve of those that are there."""
        if self.specific:
            return present & self.specific
        return present if self.latest is None else set(sorted(present)[-self.latest :])


@dataclass(frozen=True)
class ModelConfig:
    """One model: its name, the folder with its version directories, which of them to serve, and their labels."""

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batching:
    """How requests share a run of the model. The defaults are those of TensorFlow Serving, except `threads`."""

    enabled: bool = False  # False: each request is a run of its own, narrow_runs of them side by side
    request_rows: int = 1000  # most rows of one request
    batch_rows: int = 1000  # most rows of one run
    timeout_s: float = 0.0  # how long an incomplete batch waits for company while a thread is free
    queue_batches: int = 10  # full batches that may wait for one version and signature
    threads: int = 1  # runs at the same time; TensorFlow Serving takes one per core
    narrow_runs: int = 1  # runs at the same time, each on its part of the cores, while so many requests wait; 1: never
    splitting: bool = False  # a request with more rows than batch_rows is cut; else it is a run of its own
    allowed_rows: tuple[int, ...] = ()  # sizes to pad to; empty: as they come

    @property
    def queue_rows(self) -> int:
        """Most rows that may wait for one version and signature."""
        return self.queue_batches * self.batch_rows

    @property
    def piece_rows(self) -> int:
        """Most rows of a request that stay together, in one run."""
        return self.batch_rows if self.splitting else self.request_rows

    def side_by_side(self, runs: int) -> "Batching":
        """The same with narrow runs: together they have as many rows as one run had, but not less than a few each.

        A request that may not be cut keeps its rows, in a run that it shares with nobody.

        Each has an allowed size. Where only that of the whole batch is large enough there are none: padded to it, each
        would be as much work as the one run.
        """
        rows = self.padded(min(self.batch_rows, max(LEAST_ROWS, math.ceil(self.batch_rows / runs))))
        if runs == 1 or (self.allowed_rows and rows == self.batch_rows):
            return self
        return replace(self, narrow_runs=runs, batch_rows=rows, queue_batches=math.ceil(self.queue_rows / rows))

    def padded(self, rows: int) -> int:
        """The size of the run in which this many rows travel."""
        return next((size for size in self.allowed_rows if size >= rows), rows)


@dataclass(frozen=True)
class LoadPolicy:
    """How often the disk is looked at and how often a failed load is tried again."""

    poll_s: float = 1.0  # 0: look only once
    retries: int = 5
    retry_s: float = 60.0
    threads: int = 1


def read_models(path: Path) -> list[ModelConfig]:
    """The models of --model_config_file. A relative base_path starts at the file's folder.

    Raises:
        ConfigError: The file is unreadable or asks for something that is not served here.
    """
    flag = "--model_config_file"
    config = _parse(flag, path, model_server_config_pb2.ModelServerConfig())
    if config.WhichOneof("config") != "model_config_list" or not config.model_config_list.config:
        raise ConfigError(
            f"{flag} {path}: expected model_config_list {{ config {{ name base_path }} }} with a model in it"
        )
    models = [_model(flag, path, model) for model in config.model_config_list.config]
    names = [model.name for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{flag} {path}: model name {', '.join(sorted(twice))!r} stands there twice, expected once")
    return models


def read_batching(path: Path) -> Batching:
    """The parameters of --batching_parameters_file.

    Raises:
        ConfigError: The file is unreadable, a value is out of range, or two of them contradict each other.
    """
    flag = "--batching_parameters_file"
    raw = _parse(flag, path, config_pb2.BatchingParameters())

    given = {descriptor.name: message.value for descriptor, message in raw.ListFields() if descriptor.message_type}

    def value(name: str, default: int, least: int = 1) -> int:
        number = int(given.get(name, default))
        if number < least:
            raise ConfigError(f"{flag} {path}: {name} is {number}, expected {least} or more")
        return number

    request_rows = value("max_batch_size", Batching.request_rows)
    splitting = raw.enable_large_batch_splitting.value
    batch_rows = value("max_execution_batch_size", request_rows)
    if batch_rows != request_rows and not (splitting and batch_rows < request_rows):
        raise ConfigError(
            f"{flag} {path}: max_execution_batch_size is {batch_rows}, expected at most max_batch_size ({request_rows})"
            " together with enable_large_batch_splitting { value: true }"
        )
    allowed = tuple(raw.allowed_batch_sizes)
    if allowed and (list(allowed) != sorted(set(allowed)) or allowed[0] < 1 or allowed[-1] != batch_rows):
        raise ConfigError(
            f"{flag} {path}: allowed_batch_sizes are {', '.join(map(str, allowed))}, expected increasing sizes of which"
            f" the last is the largest batch ({batch_rows})"
        )
    if raw.pad_variable_length_inputs:
        raise ConfigError(
            f"{flag} {path}: pad_variable_length_inputs is true, expected false: this server batches only inputs of one"
            " shape, because padding one caller's input to another's length would change what the model sees"
        )
    return Batching(
        enabled=True,
        request_rows=request_rows,
        batch_rows=batch_rows,
        timeout_s=value("batch_timeout_micros", 0, least=0) / 1e6,
        queue_batches=value("max_enqueued_batches", Batching.queue_batches),
        threads=value("num_batch_threads", Batching.threads),
        splitting=splitting,
        allowed_rows=allowed,
    )


def read_monitoring(path: Path) -> str | None:
    """The Prometheus path of --monitoring_config_file, or None when it switches Prometheus off.

    Raises:
        ConfigError: The file is unreadable or the path does not begin with a slash.
    """
    flag = "--monitoring_config_file"
    prometheus = _parse(flag, path, config_pb2.MonitoringConfig()).prometheus_config
    if not prometheus.enable:
        return None
    where = prometheus.path or PROMETHEUS_PATH
    if not where.startswith("/"):
        raise ConfigError(f"{flag} {path}: prometheus_config.path is {where!r}, expected a path that begins with /")
    return str(where)


def _model(flag: str, path: Path, raw: model_server_config_pb2.ModelConfig) -> ModelConfig:
    name = str(raw.name)
    if not re.fullmatch(r"[^/:\s]+", name):
        raise ConfigError(f"{flag} {path}: name is {name!r}, expected a word without '/', ':' or spaces")
    if not raw.base_path:
        raise ConfigError(
            f"{flag} {path}: base_path of {name!r} is empty, expected the folder of its version directories"
        )
    if raw.model_platform not in ("", "tensorflow"):
        raise ConfigError(f"{flag} {path}: model_platform of {name!r} is {raw.model_platform!r}, expected 'tensorflow'")
    return ModelConfig(
        name=name,
        base_path=path.parent / raw.base_path,  # an absolute base_path stays as it is
        policy=_policy(flag, path, name, raw.model_version_policy),
        labels={str(label): int(number) for label, number in raw.version_labels.items()},
    )


def _policy(
    flag: str, path: Path, name: str, raw: FileSystemStoragePathSourceConfig.ServableVersionPolicy
) -> VersionPolicy:
    choice = raw.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(latest=None)
    if choice == "specific":
        if not raw.specific.versions:
            raise ConfigError(f"{flag} {path}: model_version_policy of {name!r} is specific, expected versions in it")
        return VersionPolicy(latest=None, specific=frozenset(raw.specific.versions))
    return VersionPolicy(latest=int(raw.latest.num_versions) or 1)


def _parse(flag: str, path: Path, message: _AnyMessage) -> _AnyMessage:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: cannot be read ({error}), expected a text file") from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        expected = message.DESCRIPTOR.name
        raise ConfigError(f"{flag} {path}: line {error}, expected a {expected} message in text form") from None
