"""The command line: tensorflow_model_server's flags by their names, and a few of our own."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from serving.server import config, cpu
from serving.server.config import Batching, ConfigError, LoadPolicy, ModelConfig

Argument = tuple[str, int | str]

TENSORFLOW: Final = "tensorflow"
OPENVINO_INT8: Final = "openvino-int8"
MOST_NARROW_RUNS: Final = 4  # unless more are asked for: each has buffers of its own

_TEXT: Final = """\
The embedded model server of Whence: TensorFlow Serving's gRPC API (Predict, GetModelMetadata, GetModelStatus,
health, reflection) on SavedModels, for machines where no container runs. Flags are named as those of
tensorflow_model_server."""

_EXAMPLES: Final = """\
examples:
  one model, its versions in models/culture/1, models/culture/2, ...:
      python -m serving.server --model_name culture --model_base_path models/culture --rest_api_port 8501
  the files that TensorFlow Serving reads too, with the model where it is here:
      python -m serving.server --rest_api_port 8501 --model_config_file serving/models.config \\
          --model_base_path models/culture --batching_parameters_file serving/batching.config \\
          --monitoring_config_file serving/monitoring.config

life:
  The gRPC port opens at once. Until every model has a version AVAILABLE (loaded and warmed up), health says
  NOT_SERVING; Predict on a model that is still loading answers UNAVAILABLE. On SIGTERM or SIGINT health says
  NOT_SERVING; after --drain_seconds nothing new is accepted; what was accepted is finished within --grace_seconds;
  then the exit status is 0, or 1 if something had to be cut off. A second signal ends the waiting."""


@dataclass(frozen=True)
class Options:
    """Everything the server is started with, checked."""

    host: str
    port: int
    rest_port: int | None
    models: tuple[ModelConfig, ...]
    batching: Batching
    prometheus_path: str | None
    engine: str
    precision: str
    intra_op: int
    inter_op: int
    load: LoadPolicy
    grpc_arguments: tuple[Argument, ...]
    drain_s: float
    grace_s: float

    @property
    def narrow_intra_op(self) -> int:
        """Threads inside an operation of a narrow run."""
        return max(1, self.intra_op // self.batching.narrow_runs)


def parse(argv: Sequence[str]) -> Options:
    """The options in the command line and the files it names.

    Raises:
        ConfigError: A value that the server cannot start with.
        SystemExit: --help, or a flag that argparse refuses.
    """
    flags = _parser().parse_args(argv)
    cores = cpu.available_cores()
    batching = _batching(flags, cores)
    return Options(
        host=flags.host,
        port=flags.port,
        rest_port=flags.rest_api_port or None,
        models=tuple(_models(flags)),
        batching=batching,
        prometheus_path=config.read_monitoring(flags.monitoring_config_file) if flags.monitoring_config_file else None,
        engine=flags.engine,
        precision=_precision(flags.engine, flags.mixed_precision),
        # One thread per core in all; TensorFlow's runs share them.
        intra_op=flags.tensorflow_intra_op_parallelism or max(1, cores // batching.threads),
        # One operation of each run at a time; one more, so that loading a version does not stop the runs.
        inter_op=flags.tensorflow_inter_op_parallelism or max(batching.threads + 1, batching.narrow_runs),
        load=LoadPolicy(
            poll_s=flags.file_system_poll_wait_seconds,
            retries=flags.max_num_load_retries,
            retry_s=flags.load_retry_interval_micros / 1e6,
            threads=flags.num_load_threads,
        ),
        grpc_arguments=flags.grpc_channel_arguments,
        drain_s=flags.drain_seconds,
        grace_s=flags.grace_seconds,
    )


@dataclass(frozen=True)
class _AtLeast:
    least: int

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or int(text) < self.least:
            raise argparse.ArgumentTypeError(f"is {text!r}, expected an integer, {self.least} or more")
        return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        usage="%(prog)s [flags]",
        description=_TEXT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("ports").add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address of both ports (127.0.0.1); containers need 0.0.0.0",
    )
    add("--port", type=_port, default=8500, metavar="N", help="gRPC port (8500); 0 takes a free one and logs it")
    add("--rest_api_port", type=_port, metavar="N", help="HTTP port for status, metadata and metrics (off)")
    add(
        "--grpc_channel_arguments", type=_arguments, default=(), metavar="K=V,...",
        help="gRPC server arguments, such as grpc.max_connection_age_ms=60000",
    )  # fmt: skip
    add(
        "--enable_grpc_healthcheck_service", type=_always, nargs="?", const=True, metavar="BOOL",
        help="offer the standard health service on the gRPC port (always true)",
    )  # fmt: skip
    add = parser.add_argument_group("models").add_argument
    add("--model_name", metavar="NAME", help="name of the model at --model_base_path (default)")
    add(
        "--model_base_path", type=Path, metavar="DIR",
        help="folder with the version directories; with --model_config_file it replaces the base_path of that file's"
        " only model, or of the one named by --model_name",
    )  # fmt: skip
    add(
        "--model_config_file", type=Path, metavar="FILE",
        help="ModelServerConfig in text form: several models, version policies, labels; a relative base_path starts at"
        " the file's folder",
    )  # fmt: skip
    add(
        "--file_system_poll_wait_seconds", type=_seconds, default=1.0, metavar="S",
        help="how often to look for new versions (1); 0 looks only once",
    )  # fmt: skip
    add("--max_num_load_retries", type=_AtLeast(0), default=5, metavar="N", help="tries after a failed load (5)")
    add(
        "--load_retry_interval_micros", type=_AtLeast(0), default=60_000_000, metavar="US",
        help="time between them (60000000, a minute); files that change are tried again at once",
    )  # fmt: skip
    add(
        "--allow_version_labels_for_unavailable_models", type=_always, nargs="?", const=True, metavar="BOOL",
        help="labels may name versions that are not loaded (always true)",
    )  # fmt: skip
    add("--num_load_threads", type=_AtLeast(1), default=1, metavar="N", help="versions loaded at the same time (1)")
    add = parser.add_argument_group("speed").add_argument
    add(
        "--batching_parameters_file", type=Path, metavar="FILE",
        help="BatchingParameters in text form; turns batching on",
    )  # fmt: skip
    add(
        "--enable_batching", type=_boolean, nargs="?", const=True, metavar="BOOL",
        help="batch requests (true with --batching_parameters_file, else false); false: each request is a run of its"
        f" own, several side by side (--narrow_runs), and {Batching().queue_rows} rows may wait for one version and"
        " signature; then UNAVAILABLE",
    )  # fmt: skip
    add(
        "--engine", choices=(TENSORFLOW, OPENVINO_INT8), default=TENSORFLOW,
        help="tensorflow reads SavedModels (default); openvino-int8 reads what `python -m training export"
        " --precision int8` writes",
    )  # fmt: skip
    add(
        "--mixed_precision", choices=("auto", "bfloat16", "float32", "none"), default="auto",
        help="auto: bfloat16 where it is quicker (AMX, or AVX512_BF16 of a CPU made without AMX); none is float32",
    )  # fmt: skip
    add(
        "--tensorflow_intra_op_parallelism", type=_AtLeast(0), default=0, metavar="N",
        help="threads inside one operation (0: available cores, by cgroup, over num_batch_threads)",
    )  # fmt: skip
    add(
        "--tensorflow_inter_op_parallelism", type=_AtLeast(0), default=0, metavar="N",
        help="operations that run side by side, over all runs (0: num_batch_threads + 1, or one for each narrow run)",
    )  # fmt: skip
    add(
        "--narrow_runs", type=_AtLeast(0), default=0, metavar="N",
        help="while N requests wait or more, run N batches side by side, each on its part of the cores, instead of one"
        " on all, which loses time whenever something else takes a core for a moment"
        f" (0: one per core, at most {MOST_NARROW_RUNS}; 1: never; without effect unless num_batch_threads is 1,"
        " --tensorflow_intra_op_parallelism 0, and an allowed batch size below the largest has room for a run's part of"
        " the rows); without batching, how many requests run side by side, however few wait (0: one per core)",
    )  # fmt: skip
    add = parser.add_argument_group("watching and stopping").add_argument
    add(
        "--monitoring_config_file", type=Path, metavar="FILE",
        help="MonitoringConfig in text form: the Prometheus path on the REST port",
    )  # fmt: skip
    add(
        "--drain_seconds", type=_seconds, default=0.0, metavar="S",
        help="after SIGTERM, keep accepting this long so that callers see NOT_SERVING first (0)",
    )  # fmt: skip
    add(
        "--grace_seconds", type=_seconds, default=20.0, metavar="S",
        help="then finish what was accepted within this time (20)",
    )  # fmt: skip
    return parser


def _models(flags: argparse.Namespace) -> list[ModelConfig]:
    if flags.model_config_file is None:
        if flags.model_base_path is None:
            raise ConfigError("--model_base_path is missing, expected it or --model_config_file; see --help")
        return [ModelConfig(flags.model_name or "default", flags.model_base_path)]
    models = config.read_models(flags.model_config_file)
    if flags.model_base_path is None:
        return models
    names = [model.name for model in models]
    name = flags.model_name or (names[0] if len(names) == 1 else None)
    if name not in names:
        raise ConfigError(
            f"--model_name is {name!r}, expected one of {', '.join(names)}: the model in {flags.model_config_file}"
            " to which --model_base_path belongs"
        )
    return [replace(model, base_path=flags.model_base_path) if model.name == name else model for model in models]


def _batching(flags: argparse.Namespace, cores: int) -> Batching:
    file = flags.batching_parameters_file
    if file is None and not flags.enable_batching:
        return Batching(narrow_runs=flags.narrow_runs or cores)
    if flags.enable_batching is False:
        raise ConfigError(f"--enable_batching is false, expected true with --batching_parameters_file {file}")
    batching = Batching(enabled=True) if file is None else config.read_batching(file)
    if batching.threads > 1 or flags.tensorflow_intra_op_parallelism:
        return batching
    return batching.side_by_side(flags.narrow_runs or min(cores, MOST_NARROW_RUNS))


def _precision(engine: str, wish: str) -> str:
    if engine == OPENVINO_INT8:
        if wish not in ("auto", "none"):
            raise ConfigError(f"--mixed_precision is {wish}, expected auto or none with --engine={engine}")
        return "int8"
    if wish == "auto":
        return "bfloat16" if cpu.bfloat16_is_quick() else "float32"
    if wish == "bfloat16" and not cpu.bfloat16_is_quick():
        raise ConfigError(
            "--mixed_precision is bfloat16, expected float32 or auto here, where bfloat16 is slower: it takes AMX, or"
            " AVX512_BF16 of a CPU made without AMX"
        )
    return "float32" if wish == "none" else wish


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a port from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 86400:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected seconds, from 0 to a day")
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected true or false")
    return text.lower() in ("true", "1")


def _always(text: str) -> bool:
    if text.lower() not in ("true", "1"):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected true: this server always does so")
    return True


def _arguments(text: str) -> tuple[Argument, ...]:
    """Arguments of a gRPC server; as in TensorFlow Serving, what looks like an integer is one."""
    arguments: list[Argument] = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise argparse.ArgumentTypeError(f"is {text!r}, expected key=value,key=value")
        arguments.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return tuple(arguments)
