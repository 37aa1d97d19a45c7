"""What is said of a model beside its weights: plain data that a checkpoint carries. No torch is needed to read it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lakescale.schema import BLUE, GREEN, RED, InputError

SAM = "sam"
"""The architecture of Segment Anything; every other name is one of segmentation-models-pytorch."""

ANY = "any"
VALUES = ("uint8", "reflectance", ANY)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue, 0..1: what encoders with weights from ImageNet expect."""


@dataclass(frozen=True)
class ModelSpec:
    """What must be known to run a network on windows of a scene; checked when it is made.

    Raises
    ------
    InputError
        When a value is out of its range, or the lists per band differ in length.

    Examples
    --------
    >>> spec = ModelSpec("deeplabv3plus", "resnet34")
    >>> spec.bands, spec.window, spec.threshold
    (('red', 'green', 'blue'), 1024, 0.5)
    """

    architecture: str
    """``sam``, or an architecture of segmentation-models-pytorch in lower case (``deeplabv3plus``, ``unet``, ...)."""
    encoder: str
    """``vit_b``, ``vit_l``, ``vit_h`` (SAM; ``vit`` with all sizes in `options`), or an encoder of
    segmentation-models-pytorch (``resnet34``, ``tu-convnext_tiny``, ...)."""
    bands: tuple[str, ...] = (RED, GREEN, BLUE)
    """Names of the bands, in the order in which the network takes them."""
    values: str = "uint8"
    """What a scene's numbers must be: ``uint8`` (0..255), ``reflectance`` (0..1), or ``any`` of the two."""
    scale: tuple[float, ...] = (255.0, 255.0, 255.0)
    """Per band: the network sees ``(value / scale - mean) / std``. What is not seen is 0 before that."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    window: int = 1024
    """Side of the windows that the network was trained on, pixels."""
    threshold: float = 0.5
    """Lake is where the probability is above this."""
    white_percentile: float | None = None
    """Where given, a window is first divided by this percentile (0..100) of the brightest band over its seen pixels, so
    that 8-bit pictures and reflectance look alike; the window alone decides."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network (``encoder_output_stride``, ``classes``, SAM's sizes), and ``detail_channels``:
    its head then sees the windows themselves, too, through a convolution of so many channels; JSON values only."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained or what it was converted from; changes no answer."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What was measured of it; changes no answer."""

    def __post_init__(self) -> None:
        for name in ("bands", "scale", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        item = f"{self.architecture}-{self.encoder}"
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise InputError(f"a model needs bands, each once, and not {self.bands}", item, "mend bands")
        for name in ("scale", "mean", "std"):
            _check_per_band(name, getattr(self, name), self.bands, item)
        if self.values not in VALUES:
            raise InputError(f"values={self.values!r} is unknown", item, f"take one of {', '.join(VALUES)}")
        if self.window < 1:
            raise InputError(f"a window of {self.window} pixels is none", item, "give window a positive number")
        white = self.white_percentile
        if white is not None and not (_is_usable(white, positive=True) and white <= 100):  # noqa: PLR2004
            raise InputError(f"white_percentile={white!r} is no percentile", item, "give one above 0, to 100, or None")
        _check_json(item, options=self.options, training=self.training, metrics=self.metrics)
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold={self.threshold} is no probability", item, "give one between 0 and 1")

    @property
    def title(self) -> str:
        """Architecture and encoder in one word."""
        return f"{self.architecture}-{self.encoder}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as JSON knows them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def identity(self) -> dict[str, Any]:
        """Return the fields that can change an answer."""
        told = {key: value for key, value in self.to_dict().items() if key not in {"training", "metrics"}}
        if self.white_percentile is None:  # unknown to older checkpoints, whose hashes stay
            del told["white_percentile"]
        return told


def spec_from_dict(said: Any, item: str) -> ModelSpec:
    """Read a `ModelSpec` from JSON.

    Raises
    ------
    InputError
        When fields are missing, unknown, or of another type.
    """
    known = {each.name: each for each in fields(ModelSpec)}
    if isinstance(said, dict):
        said = {"white_percentile": None, **said}
    mend = "convert or save the model again with this version"
    if not isinstance(said, dict) or set(said) != set(known):
        other = sorted(set(said) ^ set(known)) if isinstance(said, dict) else type(said).__name__
        raise InputError(f"the checkpoint tells of its model in other fields than known here ({other})", item, mend)
    for name, kinds in _KINDS.items():
        if isinstance(said[name], bool) or not isinstance(said[name], kinds):
            raise InputError(f"the checkpoint's {name} is {said[name]!r}", item, mend)
    if not all(isinstance(band, str) for band in said["bands"]):
        raise InputError(f"the checkpoint's bands are {said['bands']!r}", item, mend)
    return ModelSpec(**said)


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("architecture", "encoder", "values"), str),
    **dict.fromkeys(("bands", "scale", "mean", "std"), list),
    **dict.fromkeys(("options", "training", "metrics"), dict),
    "window": int,
    "threshold": (int, float),
    "white_percentile": (int, float, type(None)),
}


def _check_per_band(name: str, numbers: tuple[Any, ...], bands: tuple[str, ...], item: str) -> None:
    if len(numbers) != len(bands):
        raise InputError(
            f"{name} has {len(numbers)} numbers for {len(bands)} bands ({', '.join(bands)})",
            item,
            f"give {name} one number per band",
        )
    wrong = [each for each in numbers if not _is_usable(each, positive=name != "mean")]
    if wrong:
        raise InputError(f"{name} of a band is {wrong[0]!r}", item, f"give {name} finite numbers (scale, std: above 0)")


def _check_json(item: str, **notes: dict[str, Any]) -> None:
    for name, note in notes.items():
        try:
            json.dumps(note, allow_nan=False)
        except (TypeError, ValueError) as error:
            wrong = str(error)
        else:
            continue
        raise InputError(f"{name} holds what JSON has not ({wrong})", item, f"give {name} plain finite values")


def _is_usable(number: Any, *, positive: bool) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return False
    return number > 0 or not positive
