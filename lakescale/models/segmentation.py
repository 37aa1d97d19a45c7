"""Networks of segmentation-models-pytorch, by names of architecture and encoder; no weights are downloaded."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp

from lakescale.models.spec import SAM
from lakescale.schema import InputError

if TYPE_CHECKING:
    import torch

    from lakescale.models.spec import ModelSpec

_OURS = {"encoder_name", "encoder_weights", "in_channels", "activation", "aux_params"}
"""Arguments that the spec gives by other names, or that would change what comes out of the network."""


_TIMM = "tu-"
"""Prefix of the encoders that smp takes from timm, with any options."""


class SegmentationNetwork:
    """A network of segmentation-models-pytorch with random weights.

    Raises
    ------
    InputError
        When the library has no such architecture or encoder, or they do not go together.
    """

    square = False

    def __init__(self, spec: ModelSpec) -> None:
        self.n_classes = _n_classes(spec)
        self.module = _create(spec)
        encoder: Any = self.module.encoder
        self.output_stride = int(encoder.output_stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 probabilities of lake ``(n, y, x)`` from normalised windows ``(n, band, y, x)``."""
        logits = self.module(x).float()
        return logits[:, 0].sigmoid() if self.n_classes == 1 else logits.softmax(1)[:, 1]


def _n_classes(spec: ModelSpec) -> int:
    n_classes = spec.options.get("classes", 1)
    if isinstance(n_classes, bool) or n_classes not in (1, 2):
        raise InputError(
            f"a model of {n_classes!r} classes tells no probability of lake",
            spec.title,
            "take options classes=1 (lake or not) or 2 (no lake, lake)",
        )
    return int(n_classes)


def _create(spec: ModelSpec) -> torch.nn.Module:
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if spec.architecture not in known:
        raise InputError(
            f"there is no architecture {spec.architecture!r}", spec.title, f"take one of {SAM}, {', '.join(known)}"
        )
    taken = sorted(_OURS & set(spec.options))
    if taken:
        raise InputError(f"options may not hold {', '.join(taken)}", spec.title, "say it by the spec's own fields")
    unknown = set(spec.options) - set(inspect.signature(known[spec.architecture].__init__).parameters)
    if unknown and not spec.encoder.startswith(_TIMM):  # smp drops them without a word
        raise InputError(
            f"{spec.architecture} has no options {', '.join(sorted(unknown))}", spec.title, "leave them out"
        )
    wrong = ""
    try:
        return smp.create_model(
            spec.architecture,
            encoder_name=spec.encoder,
            encoder_weights=None,
            in_channels=len(spec.bands),
            **spec.options,
        )
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        wrong = str(error).strip("'\"").partition(", supported encoders")[0]
    near = difflib.get_close_matches(spec.encoder, smp.encoders.get_encoder_names(), 3) or ["resnet34"]
    raise InputError(
        f"segmentation-models-pytorch builds no {spec.architecture} with {spec.encoder}: {wrong}",
        spec.title,
        f"take another encoder ({', '.join(near)}, or tu-NAME of timm) or other options",
    )
