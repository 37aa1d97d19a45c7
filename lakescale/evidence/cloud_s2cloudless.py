"""Cloud by s2cloudless, chunk by chunk: the package's model of single pixels, and its smoothing in whole numbers."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = ("coastal", "blue", "red", "rededge1", "nir", "nir08", "nir09", "cirrus", "swir1", "swir2")
"""In the order of the package's model: B01, B02, B04, B05, B08, B8A, B09, B10, B11, B12."""
THRESHOLD, AVERAGE_PX, GROW_PX = 0.4, 4, 2
"""The package's threshold, and what its authors take at 10 m: mean over a disk, then growth by one, pixels."""
REACH_PX = AVERAGE_PX + GROW_PX
_UNITS = 65535
_BATCH = 1 << 19


def is_installed() -> bool:
    """Tell whether the package is there; it is not imported."""
    return find_spec("s2cloudless") is not None


def find_cloud(
    seen: NDArray[np.bool_], *stacks: NDArray[Any], planes: tuple[tuple[int, int], ...]
) -> NDArray[np.bool_]:
    """Find cloud in a block.

    A pixel's probability follows from its ten bands alone. It is rounded to 16 bits, so that the sums over a disk are
    exact and do not depend on the block. As in the package, what lies beyond the edge of the scene is its mirror
    image, and cloud is where the mean is above the threshold, grown by a disk. Pixels that were not seen have the
    probability 0.

    Parameters
    ----------
    seen
        Bool ``(y, x)``.
    stacks
        ``(band, y, x)`` reflectance.
    planes
        For each of `BANDS`, which stack and which of its bands.
    """
    usable = seen.copy()
    for stack, plane in planes:
        usable &= ~np.isnan(stacks[stack][plane])
    pixels = np.stack([stacks[stack][plane][usable] for stack, plane in planes], axis=1).astype(np.float32)
    units = np.zeros(seen.shape, np.int64)
    units[usable] = np.rint(_probability(pixels).astype(np.float64) * _UNITS).astype(np.int64)
    disk = _disk(AVERAGE_PX)
    above = ndimage.convolve(units, disk.astype(np.int64), mode="reflect") > THRESHOLD * _UNITS * disk.sum()
    return ndimage.binary_dilation(above, _disk(GROW_PX)) & seen


def _probability(pixels: NDArray[np.float32]) -> NDArray[Any]:
    """Ask the model about pixels ``(pixel, band)``."""
    parts = [pixels[k : k + _BATCH] for k in range(0, len(pixels), _BATCH)]
    found = [_detector().get_cloud_probability_maps(part[None, None])[0, 0] for part in parts]
    return np.concatenate(found) if found else np.empty(0, np.float32)


@lru_cache(maxsize=1)
def _detector() -> Any:
    from s2cloudless import S2PixelCloudDetector  # noqa: PLC0415  (an extra, and slow to import)

    return S2PixelCloudDetector(threshold=THRESHOLD, all_bands=False)


def _disk(radius: int) -> NDArray[np.bool_]:
    """Draw the disk that the package takes."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2)
