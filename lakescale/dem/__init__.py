"""Elevation models: one file or thousands of overlapping tiles as one lazy raster, voids kept.

- `opening`: `open_dem`, from a source to the array.
- `tiles`: which files hold elevation, and what their headers say.
- `mosaic`: where tiles lie on one grid, and what each chunk reads of them.
- `pixels`: the reader, which joins the tiles of a chunk.
"""

from lakescale.dem.opening import open_dem

__all__ = ["open_dem"]
