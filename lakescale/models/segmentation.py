"""Networks of segmentation-models-pytorch, by names of architecture and encoder; no weights are downloaded."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import torch
from torch.nn.functional import interpolate

from lakescale.models.spec import SAM
from lakescale.schema import InputError

if TYPE_CHECKING:
    from lakescale.models.spec import ModelSpec

_OURS = {"encoder_name", "encoder_weights", "in_channels", "activation", "aux_params"}
"""Arguments that the spec gives by other names, or that would change what comes out of the network."""


_DETAIL = "detail_channels"
"""The one option that is ours: see `DetailedNetwork`."""
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


class DetailedNetwork(torch.nn.Module):
    """A network whose head also sees the windows themselves, through one convolution at full resolution.

    The decoders of the library end without what is finer than half of the windows' resolution, so shores come out soft.

    Parameters
    ----------
    network
        Of segmentation-models-pytorch.
    n_bands
        Of the windows.
    n_channels
        Of the convolution, and of one more before the logits.
    """

    def __init__(self, network: Any, n_bands: int, n_channels: int) -> None:
        super().__init__()
        n_coarse, n_classes = network.segmentation_head[0].in_channels, network.segmentation_head[0].out_channels
        self.encoder, self.decoder = network.encoder, network.decoder
        self.detail = _convolve(n_bands, n_channels)
        self.segmentation_head = torch.nn.Sequential(
            _convolve(n_coarse + n_channels, n_channels), torch.nn.Conv2d(n_channels, n_classes, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, class, y, x)`` from normalised windows ``(n, band, y, x)``."""
        coarse = self.decoder(self.encoder(x))
        if coarse.shape[-2:] != x.shape[-2:]:
            coarse = interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        return self.segmentation_head(torch.cat([coarse, self.detail(x)], dim=1))


def _convolve(n_in: int, n_out: int) -> torch.nn.Sequential:
    convolution = torch.nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
    return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(n_out), torch.nn.ReLU(inplace=True))


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
    n_channels = spec.options.get(_DETAIL, 0)
    if isinstance(n_channels, bool) or not isinstance(n_channels, int) or n_channels < 0:
        raise InputError(
            f"{_DETAIL}={n_channels!r} is no number of channels", spec.title, "give 0 or a few, such as 12"
        )
    options = {name: value for name, value in spec.options.items() if name != _DETAIL}
    network = _create_known(replace(spec, options=options))
    return DetailedNetwork(network, len(spec.bands), n_channels) if n_channels else network


def _create_known(spec: ModelSpec) -> torch.nn.Module:
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
