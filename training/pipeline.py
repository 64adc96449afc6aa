"""The commands that train, from prepare to release. What they do stands in the modules of the same names."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from training.config import TrainConfig

CONFIG: Final = Path(__file__).parent / "configs" / "release.toml"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", release_dir: Path) -> None:
    """Register the commands, in the order in which they are used."""
    prepare = commands.add_parser(
        "prepare",
        help="make pixels and a split from a folder of pictures",
        description="Decode every picture as the gateway does, find near-duplicates, hold out whole artists and "
        "sources for validation, and write it all to the config's `prepared` folder, with a leak report.",
    )
    _add_config(prepare)
    prepare.set_defaults(run=_prepare)
    fit = commands.add_parser(
        "fit",
        help="train a model on what `prepare` made",
        description="Train as the config says, and calibrate (default: configs/release.toml). From ImageNet's network: "
        "compute what the head reads of each picture and its augmented views once, solve the head, with `epochs` "
        "fine-tune the blocks from `cut` on, keep the share `kept` of the way. From another "
        "run's (`start`): fine-tune its blocks further, on pixels augmented anew. The run keeps the stage with the "
        "least validation NLL. A killed run goes on where it was when started again.",
    )
    _add_config(fit)
    fit.set_defaults(run=_fit)
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a run, or a SavedModel, on the validation parts",
        description="Write evaluation.json, report.md and plots into the run's folder.",
    )
    evaluate.add_argument("--run", dest="folder", type=Path, required=True, help="what `fit` wrote")
    evaluate.add_argument("--model", type=Path, help="a version directory to ask instead, e.g. models/culture/1")
    _add_against(evaluate, "RUN", "another run on the same split")
    evaluate.add_argument("--no-baselines", action="store_true", help="leave the baselines out: faster")
    evaluate.set_defaults(run=_evaluate)
    crossvalidate = commands.add_parser(
        "crossvalidate",
        help="measure a config's head in folds",
        description="Solve the config's head on the frozen network once for each fold, of works, artists and books in "
        "turn, ask it about what it does not know, and write crossvalidation.json and crossvalidation.md into the "
        "run's folder: several times the pictures of the validation parts. Fine-tuning is left out.",
    )
    _add_config(crossvalidate)
    _add_against(crossvalidate, "CONFIG", "another TOML file of the same prepared pictures")
    crossvalidate.add_argument("--folds", type=int, default=5, help="how many of each kind (default: %(default)s)")
    crossvalidate.set_defaults(run=_crossvalidate)
    release = commands.add_parser(
        "release",
        help="publish a run as the checkpoint that `export` reads",
        description="Write model.safetensors, release.json, README.md and DATA.md, and what is made from the weights: "
        "int8.json, the sample index, reference.json. Refuses a run that is worse than the current release, or was "
        "measured on another split; the current release then stays as it is.",
    )
    release.add_argument("--run", dest="folder", type=Path, required=True, help="a run that was evaluated")
    release.add_argument("--release", type=Path, default=release_dir, help="where to (default: %(default)s)")
    release.add_argument("--version", type=int, help="its number (default: the current one and 1)")
    release.add_argument("--force", action="store_true", help="publish it even though it is worse")
    release.set_defaults(run=_release)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIG, help="a run's TOML file (default: %(default)s)")
    for name, text in (
        ("data", "folder with metadata.csv and pictures, or one folder per culture"),
        ("prepared", "what `prepare` writes"),
        ("run", "what `fit` writes"),
        ("start", "a finished run whose network is fine-tuned further"),
        ("measured-by", "a measured run to repeat on everything, validation parts too"),
    ):
        dest = "folder" if name == "run" else None
        parser.add_argument(f"--{name}", type=Path, dest=dest, help=f"{text} (default: the config's)")
    parser.add_argument("--base-weights", help='"imagenet", "random" or a path (default: the config\'s)')


def _add_against(parser: argparse.ArgumentParser, what: str, text: str) -> None:
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar=f"[NAME=]{what}",
        help=f"{text}, to be compared with picture by picture; may be given several times",
    )


def _against(options: argparse.Namespace) -> dict[str, Path]:
    given = (value.rpartition("=") for value in options.against)
    return {name or Path(path).name.removesuffix(".toml"): Path(path) for name, _, path in given}


def _config(options: argparse.Namespace, path: Path | None = None) -> "TrainConfig":
    from training.config import load_config  # Keras takes seconds to import

    config = load_config(path or options.config)
    given = {name: getattr(options, name) for name in ("data", "prepared", "start", "measured_by", "base_weights")}
    changes = {name: value for name, value in {**given, "run": options.folder}.items() if value is not None}
    return replace(config, **changes)


def _prepare(options: argparse.Namespace) -> None:
    from training.prepare import prepare

    report = prepare(_config(options))
    for part, counts in report["parts"].items():
        print(f"{part:10} {sum(counts.values()):6}  " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
    for part, leak in report["leaks"].items():
        print(f"{part:10} guessed from file geometry {leak['geometry']:.2f}, from the source {leak['source']:.2f}")


def _fit(options: argparse.Namespace) -> None:
    from training.fit import fit

    for name, row in fit(_config(options))["stages"].items():
        print(f"{name:12} accuracy {row['accuracy']:.3f}  NLL {row['nll']:.3f}  ECE {row['ece']:.3f}")


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate import evaluate
    from training.report import differences_table, parts_table

    report = evaluate(options.folder, model=options.model, floor=not options.no_baselines, against=_against(options))
    print("\n".join(parts_table(report["model"])))
    for name, differences in report["comparisons"].items():
        print("\n".join(["", f"against {name}:", *differences_table(differences)]))


def _crossvalidate(options: argparse.Namespace) -> None:
    from training.crossvalidate import crossvalidate
    from training.report import folds_tables

    against = {name: _config(options, path) for name, path in _against(options).items()}
    print("\n".join(folds_tables(crossvalidate(_config(options), against=against, count=options.folds))))


def _release(options: argparse.Namespace) -> None:
    from training.publish import publish

    published = publish(options.folder, options.release, version=options.version, force=options.force)
    print(f"{options.release}: release {published.version}")
