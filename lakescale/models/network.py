"""The network that a spec tells of, and weights that fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lakescale.models.checkpoint import write_checkpoint
from lakescale.models.sam import SamNetwork
from lakescale.models.segmentation import SegmentationNetwork
from lakescale.models.spec import SAM
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import torch

    from lakescale.models.spec import ModelSpec

_NAMED = 3


class Network(Protocol):
    """What both kinds of networks can do."""

    module: torch.nn.Module
    output_stride: int
    """Sides of windows must be multiples of this, pixels."""
    square: bool
    """Windows must be as wide as high."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 probabilities ``(n, y, x)`` from normalised windows ``(n, band, y, x)``."""


def build_network(spec: ModelSpec) -> Network:
    """Build a network with random weights.

    Raises
    ------
    InputError
        When there is no such architecture, encoder or size.
    """
    return SamNetwork(spec) if spec.architecture == SAM else SegmentationNetwork(spec)


def save_checkpoint(path: str | Path, weights: Mapping[str, torch.Tensor], spec: ModelSpec) -> str:
    """Save weights with all that is needed to use them.

    Parameters
    ----------
    path
        Where to; by convention ``NAME.safetensors``.
    weights
        State dict of the network that `spec` tells of (``build_network(spec).module``).
    spec
        Architecture, bands, normalisation, window and threshold, with how it was trained and what was measured.

    Returns
    -------
    str
        SHA-256 of the weights and of what in the spec can change an answer.

    Raises
    ------
    InputError
        When the weights do not fit the spec, or its window is no multiple of the output stride.
    """
    network = build_network(spec)
    check_weights(network.module, weights, spec, str(path))
    if spec.window % network.output_stride:
        raise InputError(*refused_window(spec.window, spec.window, network.output_stride, spec.title))
    return write_checkpoint(path, weights, spec, network.output_stride)


def load_weights(network: Network, weights: Mapping[str, torch.Tensor], spec: ModelSpec, item: str) -> None:
    """Put weights into a network, all of them and no others.

    Raises
    ------
    InputError
        When they do not fit it.
    """
    check_weights(network.module, weights, spec, item)
    network.module.load_state_dict(dict(weights))


def check_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], spec: ModelSpec, item: str) -> None:
    """Refuse weights that are not those of the module: names, then shapes.

    Raises
    ------
    InputError
        With the first names that miss, are unexpected, or are of another shape.
    """
    wanted = module.state_dict()
    missing, unexpected = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    mend = f"these weights are of another network than {spec.title}: mend architecture, encoder or options"
    if missing or unexpected:
        said = [f"{len(names)} {kind} ({_some(names)})" for kind, names in _kinds(missing, unexpected)]
        raise InputError(f"the names of the weights do not fit: {', '.join(said)}", item, mend)
    other = [name for name in wanted if wanted[name].shape != weights[name].shape]
    if not other:
        return
    has, want = tuple(weights[other[0]].shape), tuple(wanted[other[0]].shape)
    if len(other) == 1 and has[:1] + has[2:] == want[:1] + want[2:]:  # the first convolution: (out, in, y, x)
        raise InputError(
            f"the weights take {has[1]} bands, the spec names {want[1]} ({', '.join(spec.bands)})",
            item,
            "name the bands that the weights were trained on",
        )
    raise InputError(f"{len(other)} weights have other shapes ({other[0]}: {has}, not {want})", item, mend)


def refused_window(height: int, width: int, stride: int, title: str) -> tuple[str, str, str]:
    """Say what is wrong with a window that is no multiple of the output stride; where; and what mends it."""
    fitting = max(1, round(max(height, width) / stride)) * stride
    return (
        f"a window of {height} x {width} pixels is no multiple of the model's output stride of {stride}",
        title,
        f"take a window of {fitting}",
    )


def _kinds(missing: Collection[str], unexpected: Collection[str]) -> list[tuple[str, Collection[str]]]:
    return [(kind, names) for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:_NAMED]
    return ", ".join(first) + (", ..." if len(names) > _NAMED else "")
