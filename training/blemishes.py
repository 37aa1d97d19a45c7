"""What thin cloud, shadows, optics, sensors and files do to a picture, beyond its colors."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Picture
from torch.nn.functional import interpolate, pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PATCHES = 4
"""Cloud and shadow are drawn on so many by so many points of a window, smooth between them."""
_REACH = 3.0
"""Standard deviations at which a blur is cut off."""
_WHITE_LEVEL = 240
"""8-bit level of a window's white in a JPEG."""
_COLORS = 3


def smooth_field(side: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw a smooth field ``(y, x)`` of 0..1, by cubic convolution between random points."""
    points = torch.from_numpy(rng.random((1, 1, _PATCHES, _PATCHES), np.float32))
    return interpolate(points, (side, side), mode="bicubic", align_corners=True)[0, 0].clamp(0, 1)


def cover(shares: torch.Tensor, veil: torch.Tensor, shade: torch.Tensor) -> torch.Tensor:
    """Mix white into ``(band, y, x)`` by ``veil`` and take light off by ``shade``, each ``(y, x)`` of 0..1."""
    return (shares + (1 - shares) * veil) * (1 - shade)


def blur(pixels: torch.Tensor, seen: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur ``(band, y, x)`` by a Gaussian over seen pixels ``(y, x)``; the others stay as they are."""
    reach = int(np.ceil(_REACH * sigma_px))
    if reach < 1:
        return pixels
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    planes = torch.cat([pixels * seen, seen[None].float()])[:, None]
    for shape, edges in (((1, 1, -1, 1), (0, 0, reach, reach)), ((1, 1, 1, -1), (reach, reach, 0, 0))):
        planes = torch.conv2d(pad(planes, edges, mode="replicate"), (kernel / kernel.sum()).reshape(shape))
    smooth = planes[:-1, 0] / planes[-1, 0].clamp(min=1e-6)
    return torch.where(seen, smooth, pixels)


def add_noise(pixels: torch.Tensor, spread: float, rng: np.random.Generator) -> torch.Tensor:
    """Add normal noise of a standard deviation, half of it the same in all bands."""
    common, own = rng.standard_normal((1, *pixels.shape[1:]), np.float32), rng.standard_normal(pixels.shape, np.float32)
    return pixels + torch.from_numpy(common + own) * float(spread / np.sqrt(2))


def compress(shares: torch.Tensor, quality: int) -> torch.Tensor:
    """Write shares of white ``(band, y, x)`` of two or three bands as a JPEG of 8 bits, and read them back."""
    levels: NDArray[np.uint8] = np.rint((shares * _WHITE_LEVEL).clamp(0, 255).numpy()).astype(np.uint8)
    first, last = levels[0], levels[-1]
    middle = levels[1] if len(levels) == _COLORS else ((first.astype(np.uint16) + last) // 2).astype(np.uint8)
    file = io.BytesIO()
    Picture.fromarray(np.stack([first, middle, last], axis=-1)).save(file, "jpeg", quality=quality)
    read = np.moveaxis(np.asarray(Picture.open(file), np.float32), -1, 0)[:: 1 if len(levels) == _COLORS else 2]
    return torch.from_numpy(read.copy()) / _WHITE_LEVEL
