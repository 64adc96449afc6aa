"""Everything that one run can be told, as one TOML file: `training/configs/*.toml`."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from training.augment import Augmentation
from training.records import ARTIST, RANDOM, SHOWN, SOURCE
from training.shape import ModelShape

PLACES = ("data", "prepared", "run", "measured_by", "base_weights", "start")  # settings that say only where things are
LABELS = ("British", "Chinese", "French", "German", "Greek", "Italian", "Japanese", "Spanish")


@dataclass(frozen=True)
class TrainConfig:
    """One run. Paths are relative to where the command is started."""

    data: Path  # folder with metadata.csv and pictures, or with one folder per culture
    prepared: Path = Path("data/prepared")  # written by `prepare`, with the features that `fit` caches
    run: Path = Path("runs/release")  # what `fit` and `evaluate` write
    labels: tuple[str, ...] = LABELS  # cultures to tell apart; others only try the out-of-distribution score
    base_weights: str = "imagenet"  # "imagenet", "random", or the path of VGG16 weights without top

    split_seed: int = 1  # another number is another split
    random_share: float = 0.08  # of each class: validation pictures of known artists and sources
    artist_share: float = 0.12  # of unknown artists
    source_share: float = 0.10  # of unknown sources
    # Of the artists and works of other cultures: what training may be shown as strangers. The rest tries it.
    shown_share: float = 0.7
    never_shown: tuple[str, ...] = ()  # cultures that are only tried: strangers of a kind that training does not know
    # The folder of a measured run with the same settings. It is repeated on all labelled pictures, the validation parts
    # too, for as many epochs as were best, and keeps that run's temperature and thresholds: the model to release.
    measured_by: Path | None = None

    blocks: tuple[int, ...] = (2, 3, 4, 5)  # blocks of VGG16 that the head reads
    ranks: tuple[int, ...] = (0, 128, 88, 56)  # per block: directions whose covariances it reads, rank * (rank + 1) / 2
    embedding_size: int = 42  # numbers in an embedding
    # Learn from pictures of other cultures that there are such (outlier exposure: Hendrycks et al. 2019). Only the
    # ood_score depends on it, no answer does.
    outside: bool = False

    views: int = 4  # cached pictures of each picture: itself, and this many less one augmented
    augmentation: Augmentation = field(default_factory=Augmentation)  # what happens to the others
    precision: str = "float32"  # of the convolutions: "bfloat16" doubles the speed where the processor has it
    batch: int = 32  # pictures

    weight_decay: float = 0.2  # L2 penalty on the head, on standardised features, relative to the mean loss
    # Penalty on how much the logits of the augmented views differ from those of the picture itself: of no view is the
    # answer asked, only that it stays. With 0 the views are examples like the pictures.
    consistency: float = 0.0
    label_smoothing: float = 0.05  # share of the target that all classes get
    group_weight: float = 0.0  # 1: every artist counts the same, in training and calibration; 0: every picture does
    epochs: int = 0  # of fine-tuning; 0 leaves VGG16 as it is
    cut: int = 5  # the first block that fine-tuning changes
    # Fine-tune on new augmented pixels in every epoch, which all of VGG16 looks at, instead of on the cached views:
    # several times the work, and what it takes to change more than block 5 without learning the pictures by heart.
    fresh: bool = False
    # A finished run whose network is fine-tuned further, instead of ImageNet's with a new head.
    start: Path | None = None
    # How far to go from the first weights to the tuned ones: halfway knows what both know (Wortsman et al. 2022).
    kept: float = 1.0
    learning_rate: float = 5e-5  # of what is fine-tuned at its highest; cosine, after a warm-up
    warmup: float = 0.1  # share of the steps
    dropout: float = 0.2  # of the features, in fine-tuning
    averaging: float = 0.99  # exponential moving average of the weights, per step; these weights are kept
    patience: int = 2  # epochs without a lower validation NLL before fine-tuning stops
    seeds: tuple[int, ...] = (0,)  # each is a fine-tuning run; the one with the least validation NLL is kept

    # Training evens the classes out. This power of their frequencies goes back into the answers: 0 calls all classes
    # equally likely before the picture is seen, 1 as frequent as they are among the training pictures.
    prior: float = 0.0
    target_accuracy: float = 0.9  # of accepted answers
    strangers: int = 240  # pictures of each kind that the out-of-distribution score is measured on
    known_share: float = 0.98  # of validation pictures that must not be called out of distribution

    unknown: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be meant."""
        if self.unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(self.unknown))}")
        if list(self.labels) != sorted(set(self.labels)) or len(self.labels) < 2:
            raise ValueError(f"labels must be two or more, different, in alphabetical order: {', '.join(self.labels)}")
        if self.consistency and self.views < 2:
            raise ValueError("consistency needs views: at least two")
        if len(self.ranks) != len(self.blocks):
            raise ValueError("ranks needs a number for each of blocks")
        if self.views < 1 or self.epochs < 0 or not self.seeds:
            raise ValueError("views and seeds must be at least one, epochs at least zero")
        if self.start and not (self.fresh and self.epochs):
            raise ValueError("start needs fresh and epochs: cached views know only ImageNet's network")
        if not 0 < self.kept <= 1:
            raise ValueError("kept must be above 0, and 1 at most")
        if not 2 <= self.cut <= 5:
            raise ValueError("cut must be a block of VGG16 from 2 to 5")

    @property
    def shape(self) -> ModelShape:
        """The network that this run trains."""
        return ModelShape(len(self.labels), self.blocks, self.ranks, self.embedding_size, outside=self.outside)

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class that a part should get; of the other cultures in SHOWN."""
        return {
            RANDOM: self.random_share,
            ARTIST: self.artist_share,
            SOURCE: self.source_share,
            SHOWN: self.shown_share,
        }


def load_config(path: Path) -> TrainConfig:
    """Read a run's TOML file. Raises ValueError naming what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        return from_values(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_values(values: dict[str, Any]) -> TrainConfig:
    """A config from plain values: lists for tuples, strings for paths, a table for the augmentation."""
    known = {f.name for f in fields(TrainConfig)} - {"unknown"}
    given = {name: _convert(name, value) for name, value in values.items() if name in known}
    return TrainConfig(**given, unknown={name: value for name, value in values.items() if name not in known})


def to_values(config: TrainConfig) -> dict[str, Any]:
    """The reverse of `from_values`: what run.json holds."""
    values = {f.name: getattr(config, f.name) for f in fields(TrainConfig) if f.name != "unknown"}
    values["augmentation"] = vars(config.augmentation)
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def _convert(name: str, value: Any) -> Any:
    if name in ("data", "prepared", "run", "measured_by", "start"):
        return Path(value)
    if name == "augmentation":
        return Augmentation(**value)
    return tuple(value) if isinstance(value, list) else value
