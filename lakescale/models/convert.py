"""Published weights into our checkpoints: SAM as Meta and as Hugging Face keep it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakescale.models.foreign import read_foreign
from lakescale.models.network import save_checkpoint
from lakescale.models.sam import guess_size, sam_spec
from lakescale.schema import InputError
from lakescale.storage import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

META, HUGGING_FACE = "segment-anything", "Hugging Face SamModel"

_POSITIONS = "shared_image_embedding.positional_embedding"
_POSITIONS_TWIN = "prompt_encoder.shared_embedding.positional_embedding"

_RENAMES = (
    (r"^shared_image_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"image_encoder.blocks.\1.norm\2."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
)
"""From Hugging Face's names to segment-anything's; the first that fits. What fits none keeps its name."""

_PERCEPTRON = re.compile(r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.(.+)\.(\w+)$")


def convert_checkpoint(source: str | Path, target: str | Path, *, overwrite: bool = False) -> str:
    """Write published weights of SAM as one of our checkpoints.

    Known are Meta's ``sam_vit_*.pth`` and state dicts of Hugging Face's ``SamModel`` (``.bin``, ``.pth``,
    ``.safetensors``; such are the weights that the seed published). The size is read off the shapes.

    Parameters
    ----------
    source
        The file of weights.
    target
        Where to; by convention ``NAME.safetensors``.
    overwrite
        Replace `target` where it is there.

    Returns
    -------
    str
        The hash of the checkpoint.

    Raises
    ------
    InputError
        When the file is damaged, would run code, or holds a network that lakescale has not; or `target` is there.
    """
    source, target = (local_path(one, "a checkpoint to convert") for one in (source, target))
    if target.exists() and not overwrite:
        raise InputError("the checkpoint is there already", str(target), "name another file, or overwrite it")
    weights = read_foreign(source)
    kind = recognise(weights, source)
    if kind == HUGGING_FACE:
        weights = rename_weights(weights, source)
    spec = sam_spec(guess_size(weights), training={"converted_from": source.name, "kind": kind})
    return save_checkpoint(target, weights, spec)


def recognise(weights: Mapping[str, torch.Tensor], source: Path) -> str:
    """Tell whose weights these are, by their names.

    Raises
    ------
    InputError
        When lakescale cannot convert them, with the reason.
    """
    if "image_encoder.patch_embed.proj.weight" in weights:
        return META
    if "vision_encoder.patch_embed.projection.weight" in weights:
        return HUGGING_FACE
    if "aspp.aspp1.atrous_conv.weight" in weights:
        raise InputError(
            "this is DeepLabv3+ of pytorch-deeplab-xception, as the seed trained it: plain convolutions in its ASPP, "
            "rates 6, 12, 18 and multi-grid; no network of segmentation-models-pytorch (separable, 12, 24, 36) takes "
            "its weights",
            str(source),
            "train DeepLabv3+ anew, or convert the seed's SAM weights",
        )
    if any(name.startswith("segmentation_head.") for name in weights):
        raise InputError(
            "these are bare weights of segmentation-models-pytorch, which tell neither bands nor normalisation",
            str(source),
            "say them in a lakescale.models.ModelSpec, and write both with lakescale.models.save_checkpoint",
        )
    first = ", ".join(sorted(weights)[:3])
    raise InputError(f"nobody's weights that lakescale knows ({first}, ...)", str(source), "give weights of SAM")


def rename_weights(weights: Mapping[str, torch.Tensor], source: Path) -> dict[str, torch.Tensor]:
    """Give weights of Hugging Face's ``SamModel`` the names of segment-anything.

    Raises
    ------
    InputError
        When its two copies of the positional embedding differ: segment-anything has one.
    """
    twin = weights.get(_POSITIONS_TWIN)
    if twin is not None and _POSITIONS in weights and not weights[_POSITIONS].equal(twin):
        raise InputError(
            f"{_POSITIONS} and {_POSITIONS_TWIN} differ, and segment-anything has one of them",
            str(source),
            "fetch the weights again",
        )
    kept = {_POSITIONS if name == _POSITIONS_TWIN else name: tensor for name, tensor in weights.items()}
    depths = _depths(kept)
    return {_rename(name, depths): tensor for name, tensor in kept.items()}


def _rename(name: str, depths: Mapping[str, int]) -> str:
    found = _PERCEPTRON.match(name)
    if found:
        return f"{found[1]}.layers.{_layer(found[2], depths[found[1]])}.{found[3]}"
    for pattern, new in _RENAMES:
        renamed, n_times = re.subn(pattern, new, name)
        if n_times:
            return renamed
    return name


def _layer(name: str, last: int) -> str:
    """Place of a layer in a perceptron, which Hugging Face splits: ``proj_in``, ``layers.0``, ..., ``proj_out``."""
    if name == "proj_in":
        return "0"
    if name == "proj_out":
        return str(last)
    return str(int(name.removeprefix("layers.")) + 1)


def _depths(weights: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """For each perceptron, the index of its last layer."""
    depths: dict[str, int] = {}
    for name in weights:
        found = _PERCEPTRON.match(name)
        if found and found[3] == "weight":
            depths[found[1]] = depths.get(found[1], -1) + 1
    return depths
