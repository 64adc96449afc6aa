"""The command line and the three configuration files: what they mean, and how a wrong one stops the start."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.server import config, cpu, flags
from serving.server.config import Batching, ConfigError, VersionPolicy

pytestmark = pytest.mark.training

SERVING = Path(__file__).parents[2] / "serving"
Write = Callable[[str, str], Path]


def test_our_own_files_are_what_make_run_needs() -> None:
    options = flags.parse(
        [
            f"--model_config_file={SERVING}/models.config",
            "--model_base_path=models/culture",
            f"--batching_parameters_file={SERVING}/batching.config",
            f"--monitoring_config_file={SERVING}/monitoring.config",
        ]
    )
    (model,) = options.models
    assert (model.name, model.base_path) == ("culture", Path("models/culture"))
    assert options.prometheus_path == "/monitoring/prometheus/metrics"
    assert options.batching.enabled
    assert options.batching.timeout_s == 0
    assert options.batching.request_rows == 32


def test_our_models_file_names_the_path_inside_the_images() -> None:
    (model,) = config.read_models(SERVING / "models.config")
    assert model.base_path == Path("/models/culture")


def test_a_single_model_needs_only_its_folder() -> None:
    (model,) = flags.parse(["--model_base_path=somewhere"]).models
    assert (model.name, model.base_path, model.policy) == ("default", Path("somewhere"), VersionPolicy(latest=1))


def test_a_relative_base_path_starts_at_the_files_folder(file: Write) -> None:
    path = file("models.config", 'model_config_list { config { name: "a" base_path: "models/a" } }')
    assert config.read_models(path)[0].base_path == path.parent / "models/a"


def test_model_name_says_which_model_the_base_path_belongs_to(file: Write) -> None:
    text = 'model_config_list { config { name: "a" base_path: "/a" } config { name: "b" base_path: "/b" } }'
    argv = [f"--model_config_file={file('models.config', text)}", "--model_base_path=here"]
    models = flags.parse([*argv, "--model_name=b"]).models
    assert [str(model.base_path) for model in models] == ["/a", "here"]
    with pytest.raises(ConfigError, match="--model_name is None, expected one of a, b"):
        flags.parse(argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port=http"], "argument --port: is 'http', expected a port from 0 to 65535"),
        (["--port=65536"], "argument --port: is '65536', expected a port"),
        (["--mixed_precision=int8"], "argument --mixed_precision: invalid choice: 'int8'"),
        (["--enable_batching=perhaps"], "argument --enable_batching: is 'perhaps', expected true or false"),
        (["--grace_seconds=-1"], "argument --grace_seconds: is '-1', expected seconds"),
        (["--max_num_load_retries=-1"], "argument --max_num_load_retries: is '-1', expected an integer, 0 or more"),
        (["--num_load_threads=0"], "argument --num_load_threads: is '0', expected an integer, 1 or more"),
        (["--grpc_channel_arguments=a"], "argument --grpc_channel_arguments: is 'a', expected key=value"),
        (
            ["--enable_grpc_healthcheck_service=false"],
            "argument --enable_grpc_healthcheck_service: is 'false', expected true",
        ),
        (
            ["--allow_version_labels_for_unavailable_models=0"],
            "argument --allow_version_labels_for_unavailable_models: is '0', expected true",
        ),
        (["--enable_model_warmup"], "unrecognized arguments: --enable_model_warmup"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value_and_what_was_expected(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        flags.parse(["--model_base_path=x", *argv])
    assert exited.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "=true", "=1"])
@pytest.mark.parametrize("flag", ["enable_grpc_healthcheck_service", "allow_version_labels_for_unavailable_models"])
def test_what_this_server_always_does_may_be_asked_for(flag: str, value: str) -> None:
    assert flags.parse(["--model_base_path=x", f"--{flag}{value}"]) == flags.parse(["--model_base_path=x"])


def test_no_model_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="--model_base_path is missing"):
        flags.parse([])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected model_config_list"),
        ("model_config_list {", "line 1:"),
        ("custom_model_config {}", "expected model_config_list"),
        ('model_config_list { config { name: "a" } }', "base_path of 'a' is empty"),
        ('model_config_list { config { base_path: "/a" } }', "name is '', expected a word"),
        ('model_config_list { config { name: "a/b" base_path: "/a" } }', "name is 'a/b', expected a word"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "torch" } }', "is 'torch', expected"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" } }',
            "'a' stands there twice",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_version_policy { specific {} } } }',
            "specific, expected versions",
        ),
    ],
)
def test_a_wrong_models_file_is_refused(file: Write, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.read_models(file("models.config", text))
    assert str(refused.value).startswith("--model_config_file ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size is 0, expected 1 or more"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, expected 0 or more"),
        ("num_batch_threads { value: 0 }", "num_batch_threads is 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches is 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [1, 4]", "the last is the largest batch (8)"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [4, 1, 8]", "allowed_batch_sizes are 4, 1, 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 4 }", "enable_large_batch_splitting"),
        ("pad_variable_length_inputs: true", "pad_variable_length_inputs is true, expected false"),
        ("max_batch_sice { value: 8 }", "max_batch_sice"),
    ],
)
def test_a_wrong_batching_file_is_refused(file: Write, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.read_batching(file("batching.config", text))
    assert str(refused.value).startswith("--batching_parameters_file ")
    assert words in str(refused.value)


def test_an_empty_batching_file_means_tensorflow_servings_defaults(file: Write) -> None:
    assert config.read_batching(file("batching.config", "")) == Batching(enabled=True)


def test_batching_parameters_with_batching_switched_off_are_refused(file: Write) -> None:
    argv = ["--model_base_path=x", "--enable_batching=false", f"--batching_parameters_file={file('b', '')}"]
    with pytest.raises(ConfigError, match="--enable_batching is false, expected true"):
        flags.parse(argv)


@pytest.mark.parametrize(("text", "path"), [("", None), ("prometheus_config { enable: true path: '/m' }", "/m")])
def test_the_monitoring_file_names_the_path(file: Write, text: str, path: str | None) -> None:
    assert config.read_monitoring(file("monitoring.config", text)) == path


def test_a_monitoring_path_without_slash_is_refused(file: Write) -> None:
    with pytest.raises(ConfigError, match="'metrics', expected a path that begins with /"):
        config.read_monitoring(file("monitoring.config", "prometheus_config { enable: true path: 'metrics' }"))


@pytest.mark.parametrize("read", [config.read_models, config.read_batching, config.read_monitoring])
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(ConfigError, match=r"missing\.config: cannot be read"):
        read(tmp_path / "missing.config")


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(latest=1), {10}),
        (VersionPolicy(latest=2), {3, 10}),
        (VersionPolicy(latest=None), {1, 3, 10}),
        (VersionPolicy(latest=None, specific=frozenset({1, 7})), {1}),
    ],
)
def test_a_policy_chooses_versions_by_number(policy: VersionPolicy, chosen: set[int]) -> None:
    assert policy.choose({1, 3, 10}) == chosen


def test_runners_and_threads_inside_an_operation_never_exceed_the_cores(file: Write) -> None:
    cores = cpu.available_cores()
    for runners in range(1, cores + 1):
        batching = file("batching.config", f"num_batch_threads {{ value: {runners} }}")
        options = flags.parse(["--model_base_path=x", f"--batching_parameters_file={batching}"])
        assert options.batching.threads * options.intra_op <= cores


def test_narrow_runs_together_have_the_rows_of_a_wide_one_and_the_queue_stays_as_long(file: Write) -> None:
    batching = file(
        "b", "max_batch_size { value: 16 } max_enqueued_batches { value: 8 } num_batch_threads { value: 1 }"
    )
    options = flags.parse(["--model_base_path=x", f"--batching_parameters_file={batching}", "--narrow_runs=2"])
    assert (options.batching.narrow_runs, options.batching.batch_rows, options.batching.queue_batches) == (2, 8, 16)


def test_narrow_runs_are_not_cut_to_less_than_a_few_rows(file: Write) -> None:
    batching = file("batching.config", "max_batch_size { value: 8 } num_batch_threads { value: 1 }")
    options = flags.parse(["--model_base_path=x", f"--batching_parameters_file={batching}", "--narrow_runs=8"])
    assert options.batching.batch_rows == 4


@pytest.mark.parametrize(
    ("allowed", "runs", "rows"),
    [((1, 32), 1, 32), ((1, 16, 32), 2, 16), ((1, 20, 32), 2, 20), ((8, 32), 1, 32)],
    ids=["whole batch only", "its share", "next above its share", "none large enough"],
)
def test_narrow_runs_have_an_allowed_size_or_there_are_none(
    file: Write, allowed: tuple[int, ...], runs: int, rows: int
) -> None:
    batching = file("b", f"max_batch_size {{ value: 32 }} allowed_batch_sizes: {list(allowed)}")
    options = flags.parse(["--model_base_path=x", f"--batching_parameters_file={batching}", "--narrow_runs=2"])
    assert (options.batching.narrow_runs, options.batching.batch_rows) == (runs, rows)
    assert options.batching.padded(rows) == rows
    assert options.batching.queue_rows >= 320


@pytest.mark.parametrize("more", [[], ["--enable_batching=false"], ["--tensorflow_intra_op_parallelism=1"]])
def test_without_batching_as_many_requests_run_side_by_side_as_there_are_cores(more: list[str]) -> None:
    options = flags.parse(["--model_base_path=x", *more])
    assert not options.batching.enabled
    assert options.batching.narrow_runs == cpu.available_cores()


def test_a_lone_request_without_batching_has_all_cores() -> None:
    assert flags.parse(["--model_base_path=x"]).intra_op == cpu.available_cores()


@pytest.mark.parametrize("flag", ["--tensorflow_intra_op_parallelism=1", "--narrow_runs=1"])
def test_who_names_the_threads_gets_no_narrow_runs(file: Write, flag: str) -> None:
    batching = file("batching.config", "max_batch_size { value: 8 } num_batch_threads { value: 1 }")
    options = flags.parse(["--model_base_path=x", f"--batching_parameters_file={batching}", flag])
    assert (options.batching.narrow_runs, options.batching.batch_rows) == (1, 8)


def machine(root: Path, files: dict[str, str]) -> Path:
    """A file system with these files of /proc and /sys."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/box/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/host/only\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
    ids=["no cgroup", "no limit", "v2", "v2 parent", "v2 container", "v2 a fifth", "v1", "v1 no limit"],
)
def test_available_cores_follow_the_cgroup(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    unlimited = cpu.available_cores(tmp_path / "none")
    assert cpu.available_cores(machine(tmp_path, files)) == (unlimited if cores is None else cores)


@pytest.mark.parametrize(
    ("vendor", "features", "quick", "tiles"),
    [
        ("AuthenticAMD", "avx512f avx512_vbmi2 avx512_bf16", True, False),  # Zen 4
        ("GenuineIntel", "avx512f avx512_bf16", True, False),  # Cooper Lake
        ("GenuineIntel", "avx512f avx512_vbmi2 avx512_bf16 amx_tile amx_bf16", True, True),  # Sapphire Rapids
        ("GenuineIntel", "avx512f avx512_vbmi2 avx512_bf16", False, False),  # the same, without its AMX
        ("GenuineIntel", "amx_tile amx_int8", False, False),
        ("AuthenticAMD", "avx2", False, False),
        ("AuthenticAMD", "avx512_bf16x", False, False),
    ],
)
def test_bfloat16_is_quick_only_with_its_instructions(
    tmp_path: Path, vendor: str, features: str, quick: bool, tiles: bool
) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": f"vendor_id\t: {vendor}\nflags\t\t: fpu {features}\n"})
    assert cpu.bfloat16_is_quick(root) is quick
    assert cpu.multiplies_tiles(root) is tiles


def test_bfloat16_is_chosen_or_refused_by_what_the_cpu_has() -> None:
    if cpu.bfloat16_is_quick():
        assert flags.parse(["--model_base_path=x"]).precision == "bfloat16"
    else:
        with pytest.raises(ConfigError, match="--mixed_precision is bfloat16, expected float32 or auto here"):
            flags.parse(["--model_base_path=x", "--mixed_precision=bfloat16"])


def test_none_means_float32() -> None:
    assert flags.parse(["--model_base_path=x", "--mixed_precision=none"]).precision == "float32"
