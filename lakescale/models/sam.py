"""Segment Anything (Kirillov et al. 2023) through its own package, in any size, as the seed asks it.

The seed's protocol: one box round the window, a single mask, the sigmoid of the 256 x 256 mask, and that brought to the
window bilinearly. The encoder is nearly all of the cost, so encoding and decoding are two steps: an embedding serves
any number of boxes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch.nn.functional import interpolate

from lakescale.models.spec import SAM, ModelSpec
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue, 0..255, as published with SAM."""

DECODER_HEADS = 8
"""Heads of the mask decoder in all published sizes; no shape of a weight tells them."""


@dataclass(frozen=True)
class SamSize:
    """What the sizes of SAM differ in; the last six are the same in all that are published."""

    embed_dim: int
    depth: int
    n_heads: int
    global_blocks: tuple[int, ...]
    """Indexes of the blocks that attend to the whole window, not to a part of it."""
    image_size: int = 1024
    patch_size: int = 16
    attention_window: int = 14
    prompt_dim: int = 256
    mask_channels: int = 16
    decoder_mlp_dim: int = 2048


SIZES = {
    "vit_b": SamSize(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SamSize(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SamSize(1280, 32, 16, (7, 15, 23, 31)),
}
OTHER_SIZE = "vit"
"""Name of the encoder where all sizes stand in the spec's options."""


def sam_spec(size: SamSize, **notes: Any) -> ModelSpec:
    """Say of SAM in a size: RGB bytes, SAM's own normalisation, windows of its image size."""
    known = [name for name, each in SIZES.items() if each == size]
    return ModelSpec(
        SAM,
        known[0] if known else OTHER_SIZE,
        values="uint8",
        scale=(1.0, 1.0, 1.0),
        mean=PIXEL_MEAN,
        std=PIXEL_STD,
        window=size.image_size,
        options={} if known else {**asdict(size), "global_blocks": list(size.global_blocks)},
        **notes,
    )


def guess_size(weights: Mapping[str, torch.Tensor]) -> SamSize:
    """Sizes of SAM, from the shapes of its weights (segment-anything's names).

    Raises
    ------
    InputError
        When weights are missing that tell of them.
    """
    try:
        patch = weights["image_encoder.patch_embed.proj.weight"].shape[-1]
        grid, embed_dim = weights["image_encoder.pos_embed"].shape[2:]
        depth = sum(name.startswith("image_encoder.blocks.") and name.endswith(".norm1.weight") for name in weights)
        reach, head_dim = zip(
            *(weights[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)), strict=True
        )
        local = [length for length in reach if length != 2 * grid - 1]
        return SamSize(
            embed_dim,
            depth,
            embed_dim // head_dim[0],
            tuple(i for i, length in enumerate(reach) if length == 2 * grid - 1),
            image_size=grid * patch,
            patch_size=patch,
            attention_window=(local[0] + 1) // 2 if local else grid,
            prompt_dim=weights["prompt_encoder.no_mask_embed.weight"].shape[1],
            mask_channels=weights["prompt_encoder.mask_downscaling.3.weight"].shape[0],
            decoder_mlp_dim=weights["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        )
    except KeyError as error:
        missing = str(error)
    except (IndexError, ValueError):
        missing = "a block of the image encoder"
    raise InputError(f"the weights of SAM are not complete: {missing} is missing", "", "fetch them again")


class SamNetwork:
    """SAM with random weights.

    Raises
    ------
    InputError
        When the spec tells of no size of SAM.
    """

    square = True
    output_stride = 1

    def __init__(self, spec: ModelSpec) -> None:
        if len(spec.bands) != len(PIXEL_MEAN):
            raise InputError(f"SAM takes three bands, and not {len(spec.bands)}", spec.title, "name three bands")
        self.size = _size_of(spec)
        self.module = _build(self.size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 probabilities ``(n, y, x)`` from normalised windows ``(n, band, y, x)``; one box round each."""
        side = x.shape[-1]
        whole = torch.tensor([[0.0, 0.0, side, side]], device=x.device)
        each = [self.decode(embedding, whole, side)[0] for embedding in self.encode(x)]
        return self.to_window(torch.cat(each), side)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings ``(n, c, h, w)`` of normalised windows ``(n, band, y, x)``, brought to SAM's image size."""
        full = self.size.image_size
        if x.shape[-1] != full:
            x = interpolate(x, (full, full), mode="bilinear", align_corners=False, antialias=True)
        return self.module.image_encoder(x)

    def decode(self, embedding: torch.Tensor, boxes: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks for boxes in one window: float32 logits ``(k, h, w)`` on SAM's coarse grid, and their scores ``(k,)``.

        Parameters
        ----------
        embedding
            ``(c, h, w)``, of the window.
        boxes
            float32 ``(k, 4)``: first column, first row, last column, last row in the window, its edges counted from 0.
        side
            Of the window, pixels.
        """
        prompts, decoder = self.module.prompt_encoder, self.module.mask_decoder
        sparse, dense = prompts(points=None, boxes=boxes * (self.size.image_size / side), masks=None)
        logits, scores = decoder(
            image_embeddings=embedding[None],
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[:, 0].float(), scores[:, 0].float()

    def to_window(self, logits: torch.Tensor, side: int) -> torch.Tensor:
        """Probabilities ``(k, side, side)`` of logits on the coarse grid: the sigmoid first, as the seed does."""
        coarse = logits.sigmoid()[:, None]
        return interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[:, 0]


def _size_of(spec: ModelSpec) -> SamSize:
    names = [each.name for each in fields(SamSize)]
    if spec.encoder in SIZES and not spec.options:
        return SIZES[spec.encoder]
    if spec.encoder != OTHER_SIZE or set(spec.options) != set(names):
        raise InputError(
            f"there is no size {spec.encoder!r} of SAM with the options {sorted(spec.options)}",
            spec.title,
            f"take {', '.join(SIZES)} without options, or {OTHER_SIZE} with {', '.join(names)}",
        )
    return SamSize(**{**spec.options, "global_blocks": tuple(spec.options["global_blocks"])})


def _build(size: SamSize) -> Sam:
    grid = size.image_size // size.patch_size
    return Sam(
        ImageEncoderViT(
            img_size=size.image_size,
            patch_size=size.patch_size,
            embed_dim=size.embed_dim,
            depth=size.depth,
            num_heads=size.n_heads,
            out_chans=size.prompt_dim,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=size.attention_window,
            global_attn_indexes=size.global_blocks,
        ),
        PromptEncoder(size.prompt_dim, (grid, grid), (size.image_size, size.image_size), size.mask_channels),
        MaskDecoder(
            transformer_dim=size.prompt_dim,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=size.prompt_dim, mlp_dim=size.decoder_mlp_dim, num_heads=DECODER_HEADS
            ),
        ),
    )
