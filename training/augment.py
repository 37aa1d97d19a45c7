"""Windows changed at random, as another place, day or sensor would show them; the mask goes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

from lakescale.models.normalisation import find_white
from lakescale.schema import InputError
from training.blemishes import add_noise, blur, compress, cover, smooth_field
from training.dataset import NOT_LABELLED

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE_PERCENTILE = 95.0
_LEAST = 0.004
"""What is seen does not become 0, which is not seen; 1 of 255."""
_HAZE = (0.55, 0.75, 1.0)
"""Haze adds most to what scatters most; of three bands red, green and blue."""
_BEST_JPEG, _BANDS_OF_JPEG = 95, (2, 3)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a window, each with its own draw. Values are those of the scene, 8-bit or reflectance.

    Not seen pixels stay 0; what the others become is never below 0, and brighter stays brighter within a band.
    """

    flips: bool = False
    """Mirrored left to right, half of them."""
    turns: bool = False
    """Turned by 0, 90, 180 or 270 degrees."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Magnified by a factor between these; below 1, the rest of the window is not seen."""
    gain: tuple[float, float] = (1.0, 1.0)
    """All bands times one factor between these: light, or another stretch. Ratios of bands stay."""
    tint: float = 0.0
    """Each band times its own factor, 1 at most this more or less: atmosphere, calibration."""
    haze: float = 0.0
    """Light added to all pixels, at most this share of the window's white, most of it in blue."""
    black: float = 0.0
    """Taken off all pixels, at most this share of the window's white, as 8-bit stretches do; down to nearly 0."""
    gamma: tuple[float, float] = (1.0, 1.0)
    """Power, between these, of the share that a pixel has of the window's white."""
    clip: float = 1.0
    """Half of the windows are cut off at a share of their white between this and 1, as 8-bit stretches are."""
    veil: float = 0.0
    """White mixed into half of the windows, smoothly more or less, at most this share: thin cloud."""
    shade: float = 0.0
    """Light taken off half of the windows, smoothly more or less, at most this share: shadows of clouds and slopes."""
    blur: float = 0.0
    """Half of the windows are blurred by a Gaussian of at most so many pixels: optics, resampling."""
    noise: float = 0.0
    """Noise in half of the windows, of at most this share of their white (standard deviation)."""
    jpeg: int | None = None
    """A third of the windows go through a JPEG of a quality between this and 95; of two or three bands only."""

    def __post_init__(self) -> None:
        for name, (low, high) in (("zoom", self.zoom), ("gain", self.gain), ("gamma", self.gamma)):
            if not 0 < low <= high:
                raise InputError(f"{name} runs from low to high above 0, got {(low, high)}", "augment")
        if self.jpeg is not None and not 1 <= self.jpeg <= _BEST_JPEG:
            raise InputError(f"jpeg is a quality of 1 to {_BEST_JPEG}, got {self.jpeg}", "augment")

    def apply(
        self, pixels: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change a window.

        Parameters
        ----------
        pixels
            float32 ``(band, y, x)``, square, 0 where not seen.
        mask
            uint8 ``(y, x)``, 255 where not labelled.
        rng
            Draws; what is done follows from its state alone.

        Returns
        -------
        pixels, mask
            Of the same shapes and types, contiguous.
        """
        draw = _Draw.of(rng, len(pixels))
        pixels, mask = _zoom(pixels, mask, _between(self.zoom, draw.zoom, is_factor=True), draw.shift)
        if self.turns:
            pixels, mask = (torch.rot90(one, draw.turns, (-2, -1)) for one in (pixels, mask))
        if self.flips and draw.mirrored:
            pixels, mask = (one.flip(-1) for one in (pixels, mask))
        if self != Augmentation(flips=self.flips, turns=self.turns, zoom=self.zoom):
            pixels = self._repaint(pixels, draw, rng)
        return pixels.contiguous(), mask.contiguous()

    def _repaint(self, pixels: torch.Tensor, draw: _Draw, rng: np.random.Generator) -> torch.Tensor:
        """Change what is seen; the rest stays 0."""
        seen = (pixels != 0).any(dim=0)
        white = find_white(pixels, _WHITE_PERCENTILE)
        spoilt = _Spoilt.of(rng)
        shares = pixels / white
        if self.blur and spoilt.is_blurred:
            shares = blur(shares, seen, self.blur * spoilt.blur)
        if self.veil or self.shade:
            side = shares.shape[-1]
            veil, shade = (smooth_field(side, rng) for _ in range(2))
            shares = cover(shares, self.veil * spoilt.veil * veil, self.shade * spoilt.shade * shade)
        shares = self._recolor(shares, draw)
        if self.noise and spoilt.is_noisy:
            shares = add_noise(shares, self.noise * spoilt.noise, rng)
        if self.jpeg is not None and spoilt.is_jpeg and len(shares) in _BANDS_OF_JPEG:
            shares = compress(shares, round(_between((self.jpeg, _BEST_JPEG), spoilt.jpeg)))
        least = _LEAST if self.black or self.noise or self.jpeg is not None else 0
        return torch.where(seen, shares.clamp(min=least) * white, 0)

    def _recolor(self, shares: torch.Tensor, draw: _Draw) -> torch.Tensor:
        """Change tones: band by band, each a rising function of what it was."""
        factors = _between(self.gain, draw.gain, is_factor=True) * (1 + self.tint * (2 * draw.tint - 1))
        haze = self.haze * draw.haze * np.interp(np.linspace(0, 2, len(shares)), range(3), _HAZE)
        shares = shares + _per_band(haze) - self.black * draw.black
        shares = shares.clamp(min=_LEAST if self.black else 0) ** _between(self.gamma, draw.gamma, is_factor=True)
        if draw.is_clipped and self.clip < 1:
            shares = shares.clamp(max=_between((self.clip, 1.0), draw.clip))
        return shares * _per_band(factors)


@dataclass(frozen=True)
class _Draw:
    """All that is drawn of a window: always the same number of draws, so that options do not shift each other."""

    mirrored: bool
    turns: int
    is_clipped: bool
    zoom: float
    gain: float
    haze: float
    black: float
    gamma: float
    clip: float
    shift: NDArray[np.float64]
    tint: NDArray[np.float64]

    @classmethod
    def of(cls, rng: np.random.Generator, bands: int) -> _Draw:
        coin, turns, is_clipped = int(rng.integers(2)), int(rng.integers(4)), int(rng.integers(2))
        names = ("zoom", "gain", "haze", "black", "gamma", "clip")
        shares = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        return cls(bool(coin), turns, bool(is_clipped), shift=rng.random(2), tint=rng.random(bands), **shares)


@dataclass(frozen=True)
class _Spoilt:
    """All that is drawn of a window's blemishes, fields and noise apart; drawn after `_Draw`."""

    is_blurred: bool
    is_noisy: bool
    is_jpeg: bool
    blur: float
    noise: float
    jpeg: float
    veil: float
    """0 in half of the windows; so the next."""
    shade: float

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Spoilt:
        coins, shares = rng.random(5), rng.random(5).tolist()
        is_covered = coins[3:] < 0.5  # noqa: PLR2004  (half of the windows)
        return cls(
            bool(coins[0] < 0.5),  # noqa: PLR2004
            bool(coins[1] < 0.5),  # noqa: PLR2004
            bool(coins[2] < 1 / 3),
            blur=shares[0],
            noise=shares[1],
            jpeg=shares[2],
            veil=shares[3] * float(is_covered[0]),
            shade=shares[4] * float(is_covered[1]),
        )


def _between(ends: tuple[float, float], share: float, *, is_factor: bool = False) -> float:
    low, high = ends
    return float(low * (high / low) ** share if is_factor else low + (high - low) * share)


def _per_band(numbers: NDArray[np.float64]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None]


def _zoom(
    pixels: torch.Tensor, mask: torch.Tensor, factor: float, shift: NDArray[np.float64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Magnify a part of a window to all of it, or shrink the window into a part; pixels by their seen neighbours."""
    side = mask.shape[-1]
    taken = max(1, round(side / factor))
    if taken == side:
        return pixels, mask
    first = np.floor(shift * (abs(side - taken) + 1)).astype(int).tolist()
    seen = (pixels != 0).any(dim=0, keepdim=True).float()
    planes, labels = torch.cat([pixels, seen]), mask
    if taken < side:
        part = tuple(slice(one, one + taken) for one in first)
        planes, labels = planes[:, *part], labels[part]
    else:
        wide = torch.zeros((len(planes), taken, taken))
        framed = torch.full((taken, taken), NOT_LABELLED, dtype=mask.dtype)
        part = tuple(slice(one, one + side) for one in first)
        wide[:, *part], framed[part] = planes, mask
        planes, labels = wide, framed
    planes = interpolate(planes[None], (side, side), mode="bilinear", align_corners=False, antialias=taken > side)[0]
    labels = interpolate(labels[None, None].float(), (side, side), mode="nearest-exact")[0, 0].to(mask.dtype)
    share = planes[-1]
    is_seen = share > 0.5  # noqa: PLR2004  (of the pixel)
    zoomed = torch.where(is_seen, planes[:-1] / share.clamp(min=0.5), 0)
    return zoomed, torch.where(is_seen, labels, NOT_LABELLED)
