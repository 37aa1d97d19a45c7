"""A model without torch, and a scene for it."""

from __future__ import annotations

import numpy as np
from rasters import raster


def made_up(windows):
    """A model whose answer depends on the whole window and on where a pixel lies in it, but not on the batch."""
    answers = []
    for pixels in windows.astype(np.float64):
        rows, cols = np.indices(pixels.shape[1:])
        answers.append(np.abs(np.sin(pixels[0] * 0.7 + pixels.sum() * 0.01 + rows * 0.3 + cols * cols * 0.11)))
    return np.array(answers, np.float32)


def blocks_of_255(chunks=32):
    return raster(np.random.default_rng(5).integers(0, 255, (3, 128, 128)).astype(np.uint8), chunks)
