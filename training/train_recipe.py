"""The recipe of a training: data, network, loss, schedule; typed, so that a mistake is told before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lakescale.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from lakescale.schema import BLUE, GREEN, RED
from lakescale.storage import local_path
from training.augment import Augmentation
from training.kinds import HARD, NEGATIVE, POSITIVE

DRAWN = "drawn"
"""Of ``data.lakes``: the labels of `training.labels`."""

Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Kind = Literal["positive", "negative", "hard"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NetworkRecipe(_Strict):
    """The network, what it is shown, and what it starts from; fields as in `lakescale.models.ModelSpec`."""

    architecture: str
    encoder: str
    bands: tuple[str, ...] = (RED, GREEN, BLUE)
    values: Literal["uint8", "reflectance", "any"] = "uint8"
    scale: tuple[float, ...] = (255.0, 255.0, 255.0)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    white_percentile: float | None = None
    options: dict[str, Any] = {}
    start: str | None = None
    """Checkpoint of lakescale whose weights the training starts from; random weights by default."""
    frozen: tuple[str, ...] = ()
    """Parts of the network that are not trained, such as ``encoder``, or ``image_encoder`` of SAM."""

    def spec(self, window: int) -> ModelSpec:
        """Say of the network what a checkpoint says."""
        return ModelSpec(**self.model_dump(exclude={"start", "frozen"}), window=window)


class SyntheticRecipe(_Strict):
    """Synthetic scenes, see `lakescale.make_region`: one land for each seed, pictured on each date in each kind."""

    name: str
    """Images are named ``NAME-SEED-KIND_DATE``."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    size: Annotated[int, Field(ge=16)] = 768
    dates: Annotated[tuple[Annotated[str, BeforeValidator(str)], ...], Field(min_length=1)]
    kinds: Annotated[tuple[Literal["rgb8", "reflectance"], ...], Field(min_length=1)] = ("rgb8", "reflectance")
    kind_by_seed: bool = False
    """Whether each land is pictured in one kind only, the kinds in turn."""
    scenery: dict[str, Any] = {}
    """See `lakescale.synthetic.scenery.Scenery`."""


class SamplesRecipe(_Strict):
    """Which windows there are, see `training.kinds.SampleRules`."""

    window: Annotated[int, Field(ge=1)] = 1024
    stride: Annotated[int, Field(ge=1)] = 512
    least_seen_share: Share = 0.01
    least_vertices: int = 5
    colorful: float = 3.7
    thin: float | None = 2.0


class MineRecipe(_Strict):
    """Negatives that a trained model takes for lakes are hard, see `training.mining.mine_hard_negatives`."""

    model: str
    """Checkpoint; is used with its own window and threshold."""
    least_share: Annotated[float, Field(ge=0, lt=1)] = 0.01


class DataRecipe(_Strict):
    """Images and what was drawn of them."""

    sources: tuple[str, ...] = ()
    """Cubes and scenes: paths and globs, in which ``$NAME`` is a variable of the environment."""
    lakes: str | None = None
    """Vector file of lakes with a column ``image`` (see `training.annotations`), or ``drawn``: `training.labels`."""
    ignore: str | None = None
    """Vector file of areas to learn nothing from."""
    regions: str | None = None
    """Vector file of regions with a column ``region_num``."""
    hard: str | None = None
    """CSV or Parquet file of hard negatives: columns ``image``, ``row``, ``col``."""
    mine: MineRecipe | None = None
    """Where given, windows in which a model is wrong are hard negatives, too."""
    synthetic: tuple[SyntheticRecipe, ...] = ()
    samples: SamplesRecipe = SamplesRecipe()

    @model_validator(mode="after")
    def _has_images(self) -> DataRecipe:
        if not self.sources and not self.synthetic:
            raise ValueError("a training needs images: sources, synthetic, or both")
        if self.sources and self.lakes is None:
            raise ValueError("sources need lakes")
        return self


class SplitRecipe(_Strict):
    """What is learned from and what judges: whole images by name, or a fold of `training.folds.assign_folds`."""

    validation: tuple[str, ...] = ()
    """Patterns of images' names (``*``, ``?``); where given, no folds are dealt."""
    test: tuple[str, ...] = ()
    """Images that the training never looks at."""
    by: Literal["image-region", "region", "block"] = "image-region"
    folds: int | Literal["leave-one-out"] = 5
    fold: int = 0
    block_px: int = 8192


class SamplerRecipe(_Strict):
    """Which windows an epoch draws; without shares, every window once, in random order.

    Shares of ``positive`` and ``negative`` alone take the hard negatives for negatives.
    """

    shares: dict[Kind, Share] | None = None
    length: Annotated[int, Field(ge=1)] | None = None
    """How many; by default as many as there are."""
    kinds: tuple[Kind, ...] = ("positive", "negative", "hard")
    """What is drawn from where there are no shares."""
    repeat: dict[str, Annotated[int, Field(ge=1)]] = {}
    """How many times the windows of images are listed, by patterns of their names; the first that fits counts."""


class AugmentRecipe(_Strict):
    """See `training.augment.Augmentation`; by default none."""

    flips: bool = False
    turns: bool = False
    zoom: tuple[Weight, Weight] = (1.0, 1.0)
    gain: tuple[Weight, Weight] = (1.0, 1.0)
    tint: Annotated[float, Field(ge=0, lt=1)] = 0.0
    haze: Annotated[float, Field(ge=0, lt=1)] = 0.0
    black: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gamma: tuple[Weight, Weight] = (1.0, 1.0)
    clip: Share = 1.0
    veil: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shade: Annotated[float, Field(ge=0, lt=1)] = 0.0
    blur: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    jpeg: Annotated[int, Field(ge=1, le=95)] | None = None

    def make(self) -> Augmentation:
        """Make the augmentation."""
        return Augmentation(**self.model_dump())


class LossRecipe(_Strict):
    """Weights of the losses, which are added; see `training.losses`."""

    dice: Weight | None = None
    cross_entropy: Weight | None = None
    focal: Weight | None = None
    tversky: Weight | None = None
    tversky_beta: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Of the Tversky loss, what a missed pixel weighs; one too many weighs 1 - beta."""
    coarse: bool = False
    """Whether SAM is judged on its own coarse grid, as the seed did, and not on the window's pixels."""

    @property
    def weights(self) -> dict[str, float]:
        """Those that are given."""
        told = self.model_dump(include={"dice", "cross_entropy", "focal", "tversky"})
        return {name: weight for name, weight in told.items() if weight is not None}

    @model_validator(mode="after")
    def _has_a_loss(self) -> LossRecipe:
        if not self.weights:
            raise ValueError("a training needs a loss: dice, cross_entropy, focal or tversky")
        return self


class OptimizerRecipe(_Strict):
    """Steps of the descent."""

    name: Literal["sgd", "adam", "adamw"]
    lr: Weight
    decoder_lr: Weight | None = None
    """Of all parts but the encoder; by default the same."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of ``sgd``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "poly", "cosine"] = "constant"
    """How the rates fall to 0 over the training; ``poly`` by the power 0.9, as DeepLab's."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rates rise first, evenly."""


class ThresholdRecipe(_Strict):
    """What the threshold is chosen from, by the strict F1 of lakes on the validation side."""

    candidates: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.3, 0.4, 0.5, 0.6, 0.7)
    min_area_m2: Annotated[float, Field(ge=0)] = 5000.0
    """Smaller lakes are left out, found and true ones."""


def _on_this_machine(value: Any) -> Any:
    return local_path(value, "the folder of a training") if isinstance(value, str | Path) else value


class TrainRecipe(_Strict):
    """A training."""

    out: Annotated[Path, BeforeValidator(_on_this_machine)]
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    network: NetworkRecipe
    data: DataRecipe
    split: SplitRecipe = SplitRecipe()
    sampler: SamplerRecipe = SamplerRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe
    optimizer: OptimizerRecipe
    batch: Annotated[int, Field(ge=1)] = 8
    epochs: Annotated[int, Field(ge=1)]
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running mean of the weights, by steps; the mean is what is judged and kept. None keeps the last."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better IoU on the validation side after which the training stops."""
    threshold: ThresholdRecipe = ThresholdRecipe()
    threads: Annotated[int, Field(ge=1)] | None = None
    """Of torch on a CPU; sums depend on it in their last digits, so weights are the same for the same number."""
    accelerator: str = "cpu"
    """``cpu``, ``gpu`` or ``auto``, as Lightning has it; so the next two."""
    devices: int | str = 1
    precision: str = "32-true"
    """``bf16-mixed`` and ``16-mixed`` are mixed precision."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read windows; 0 reads them in the training's own."""
    panels: Annotated[int, Field(ge=0)] = 6
    """Windows of the validation side that are drawn after each epoch."""

    def saved(self, which: str) -> Path:
        """Tell where Lightning's checkpoint of the ``best`` or the ``last`` epoch lies."""
        return self.out / "checkpoints" / f"{which}.ckpt"

    @property
    def answer(self) -> dict[str, Any]:
        """All that the weights depend on."""
        return self.model_dump(mode="json", exclude={"out", "workers", "panels", "threshold"})

    def to_yaml(self) -> str:
        """Write the recipe as YAML that is read back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_POSITIVE_AND_HARD = {"shares": {POSITIVE: 0.5, HARD: 0.5}}
PRESETS: dict[str, dict[str, Any]] = {
    "deeplab": {
        "network": {"architecture": "deeplabv3plus", "encoder": "resnet101", "options": {"classes": 2}},
        "loss": {"dice": 1, "cross_entropy": 1},
        "optimizer": {"name": "sgd", "lr": 5e-4, "decoder_lr": 5e-3, "weight_decay": 5e-4, "schedule": "poly"},
        "sampler": {"shares": {POSITIVE: 0.5, NEGATIVE: 0.5}},
        "batch": 8,
        "epochs": 14,
    },
    "sam": {
        "network": {
            "architecture": "sam",
            "encoder": "vit_b",
            "scale": (1.0, 1.0, 1.0),
            "mean": (123.675, 116.28, 103.53),
            "std": (58.395, 57.12, 57.375),
            "frozen": ("image_encoder", "prompt_encoder"),
        },
        "loss": {"dice": 1, "coarse": True},
        "optimizer": {"name": "adam", "lr": 5e-6},
        "sampler": _POSITIVE_AND_HARD,
        "batch": 8,
        "epochs": 10,
    },
}
"""The seed's recipes, for its DeepLabv3+ and the mask decoder of its SAM. SAM starts from a checkpoint."""


def fill_in(values: dict[str, Any]) -> dict[str, Any]:
    """Put the entries of ``preset`` below what is given; raise `KeyError` where there is no such preset."""
    given = dict(values)
    preset = given.pop("preset", None)
    return given if preset is None else _merge(PRESETS[preset], given)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        inside = isinstance(under, dict) and isinstance(value, dict) and name != "shares"
        merged[name] = _merge(dict(under or {}), value) if inside else value
    return merged


def list_differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Name the entries in which two recipes differ, such as ``optimizer.lr``."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [k for key in keys for k in list_differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))]
    return [] if one == other else [name]
