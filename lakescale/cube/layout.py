"""What all scenes of a cube share, and how its store looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lakescale.grid import Grid
from lakescale.schema import BAND, SEEN, TIME, InputError
from lakescale.store import (
    Commits,
    Member,
    Raster,
    add_values,
    check_chunks,
    describe,
    make_store,
    open_array,
    same_grid,
    stored_grid,
)

if TYPE_CHECKING:
    import xarray as xr
    import zarr
    from numpy.typing import NDArray

    from lakescale.storage import Location

KIND, SCENE = "cube", "scene"
"""What the store calls itself; its array of pixels."""
SIDE = 2048
_DAYS = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time", "axis": "T"}
_TIME_CHUNK = 1024


@dataclass(frozen=True)
class Layout:
    """What all scenes of a cube share."""

    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    chunk: tuple[int, int]
    side: int
    """The chunks asked for; ``chunk`` is smaller where the grid is. Scenes opened with it are known again."""

    @classmethod
    def of(cls, scene: xr.DataArray, grid: Grid | None, chunks: int | None) -> Layout:
        """Lay out a new cube by its first scene."""
        side = check_chunks(SIDE if chunks is None else chunks)
        grid = grid or Grid.of(scene)
        height, width = (min(side, size) for size in grid.shape)
        return cls(grid, bands_of(scene), str(scene.dtype), (height, width), side)

    @classmethod
    def read(cls, group: zarr.Group) -> Layout:
        """Read the layout of a cube."""
        array, told = open_array(group, SCENE), describe(group)
        return cls(stored_grid(group), tuple(told["bands"]), str(array.dtype), tuple(array.chunks[-2:]), told["side"])

    def commits(self, root: Location) -> Commits:
        """How the chunks of a store are committed."""
        arrays = Member(SCENE, self.dtype, (len(self.bands),)), Member(SEEN, "bool")
        return Commits(str(root.absolute()), arrays, self.grid.shape, self.chunk)

    def make(self, root: Location) -> None:
        """Make a cube without dates."""
        told = {"kind": KIND, "bands": list(self.bands), "side": self.side, "dates": []}
        make_store(root, self.grid, told, self._build)

    def _build(self, group: zarr.Group) -> None:
        names = {"long_name": "band", "band_names": list(self.bands)}
        add_values(group, BAND, np.arange(1, len(self.bands) + 1), [BAND], names)
        add_values(group, TIME, np.empty(0, np.int64), [TIME], _DAYS, chunk=_TIME_CHUNK)
        Raster({TIME: 0, BAND: len(self.bands)}, self.chunk, self.dtype, {}).add_to(group, SCENE)
        Raster({TIME: 0}, self.chunk, "bool", {"long_name": "pixel with data"}).add_to(group, SEEN)

    def check(self, root: Location, grid: Grid | None, chunks: int | None) -> None:
        """Refuse a grid or chunks other than the store's."""
        if grid is not None and not same_grid(grid, self.grid):
            raise InputError(
                f"the store has another grid: {self.grid.shape} pixels, {self.grid.crs.to_string()[:60]}", str(root),
                "leave grid= (--crs, --resolution, --like) out to bring the scenes to it, or give another store",
            )  # fmt: skip
        if chunks is not None and not self.has_chunks(chunks):
            mend = "leave chunks= (--chunks) out, or give another store"
            raise InputError(f"the store has chunks of {self.chunk}", str(root), mend)

    def has_chunks(self, side: int) -> bool:
        """Tell whether chunks of this side would be the store's."""
        return tuple(min(check_chunks(side), size) for size in self.grid.shape) == self.chunk


def day_of(scene: xr.DataArray) -> str:
    """Tell the date of a scene, as ``2019-07-23``."""
    return str(scene[TIME].to_numpy().astype("datetime64[D]"))


def bands_of(scene: xr.DataArray) -> tuple[str, ...]:
    """Tell the names of a scene's bands."""
    return tuple(str(name) for name in scene[BAND].to_numpy())


def since_1970(days: list[str]) -> NDArray[np.int64]:
    """Count days as the store does."""
    return np.array(days, "datetime64[D]").astype(np.int64)
