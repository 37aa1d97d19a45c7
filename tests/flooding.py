"""A plain priority-flood in Python, DEMs that are hard to fill, and Hypothesis strategies for them."""

from __future__ import annotations

import heapq
from itertools import product

import numpy as np
from hypothesis import strategies as st
from rasters import shapes
from scipy import ndimage

EIGHT = np.ones((3, 3), int)
_STEPS = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]


def priority_flood(dem, nodata="wall"):
    """Fill a DEM cell by cell from its outlets, the lowest reached cell first; nothing clever, for tests only."""
    dem = np.asarray(dem, np.float32) + np.float32(0)
    height, width = dem.shape
    is_void = np.isnan(dem)
    outlet_voids = is_void if nodata == "outlet" else _joined_to_edge(is_void)
    filled, queue, reached = dem.copy(), [], np.zeros(dem.shape, bool)
    for row, col in product(range(height), range(width)):
        if is_void[row, col]:
            continue
        around = [(row + down, col + right) for down, right in _STEPS]
        if any(not (0 <= r < height and 0 <= c < width) or outlet_voids[r, c] for r, c in around):
            heapq.heappush(queue, (float(dem[row, col]), row, col))
            reached[row, col] = True
    while queue:
        level, row, col = heapq.heappop(queue)
        filled[row, col] = level
        for down, right in _STEPS:
            r, c = row + down, col + right
            if 0 <= r < height and 0 <= c < width and not reached[r, c] and not is_void[r, c]:
                reached[r, c] = True
                heapq.heappush(queue, (max(level, float(dem[r, c])), r, c))
    return filled


def _joined_to_edge(is_void):
    parts, _ = ndimage.label(is_void, EIGHT)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, edge[edge > 0])


def serpentine(n, *, falling=True):
    """A channel that winds through the whole square between high banks and falls (or rises) by 1 m a cell."""
    dem = np.full((n, n), 1e6, np.float32)
    path = []
    for k, row in enumerate(range(1, n - 1, 2)):
        cols = list(range(1, n - 1))
        path += [(row, col) for col in (cols if k % 2 == 0 else cols[::-1])]
        if row + 2 < n - 1:
            path.append((row + 1, cols[-1] if k % 2 == 0 else cols[0]))
    last_row, last_col = path[-1]
    path.append((last_row, n - 1) if last_col == n - 2 else (last_row, 0))
    for k, cell in enumerate(path):
        dem[cell] = len(path) - k if falling else k
    return dem


def bowl(n):
    """One depression as wide as the mosaic, with pits in it, an island, and a spillway in one corner."""
    rows, cols = np.mgrid[:n, :n] - (n - 1) / 2
    dem = (np.hypot(rows, cols) * 2).round().astype(np.float32)
    dem[[0, -1], :] = dem[:, [0, -1]] = dem.max()
    dem[n // 3 : n // 3 + 3, n // 3 : n // 3 + 3] += 500
    dem[-1, -2] = dem[n // 2, 0] - 3
    return dem


def rough(shape, seed, *, levels=None, holes=0.0, smooth=0.0):
    """Noise, smoothed or not, of a few levels or many, with voids."""
    rng = np.random.default_rng(seed)
    dem = rng.standard_normal(shape)
    if smooth:
        dem = ndimage.gaussian_filter(dem, smooth)
        dem /= max(dem.std(), 1e-9)
    dem = (dem * 100).astype(np.float32) if levels is None else np.floor(dem * levels / 3).astype(np.float32)
    if holes:
        seed_of_holes = ndimage.gaussian_filter(rng.standard_normal(shape), smooth) if smooth else rng.random(shape)
        dem[seed_of_holes < np.quantile(seed_of_holes, holes)] = np.nan
    return dem


@st.composite
def dems(draw, largest=18):
    """DEMs on which fills go wrong: flats, plateaus, constants, mazes, voids of any density, islands in voids."""
    shape = draw(shapes(largest))
    seed = draw(st.integers(0, 2**32 - 1))
    levels = draw(st.sampled_from([0, 1, 2, 4, None]))
    holes = draw(st.sampled_from([0.0, 0.0, 0.03, 0.15, 0.4, 0.7, 1.0]))
    dem = rough(shape, seed, levels=levels, holes=holes, smooth=draw(st.sampled_from([0.0, 0.0, 1.0, 2.0])))
    kind = draw(st.sampled_from(["noise", "noise", "maze", "moat", "rim"]))
    if kind == "maze":
        n = min(shape)
        if n >= 4:
            dem[:n, :n] = np.where(np.isnan(dem[:n, :n]), np.nan, serpentine(n, falling=draw(st.booleans())))
    elif kind == "moat" and min(shape) >= 5:
        inset = draw(st.integers(0, (min(shape) - 3) // 2))
        dem[inset, inset : -inset or None] = dem[-1 - inset, inset : -inset or None] = np.nan
        dem[inset : -inset or None, inset] = dem[inset : -inset or None, -1 - inset] = np.nan
        if draw(st.booleans()):
            dem[inset, inset] = 1
    elif kind == "rim":
        dem[[0, -1], :] = dem[:, [0, -1]] = 1000
        dem[0, draw(st.integers(0, shape[1] - 1))] = draw(st.sampled_from([-5, 0, 1]))
    return dem
