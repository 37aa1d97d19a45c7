"""Synthetic scenes to learn from, as cubes on disk, with their true lakes and what of them nobody can see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.cluster import compute
from lakescale.cube import write_cube
from lakescale.polygons import polygonize
from lakescale.schema import BAND, BLUE, GREEN, RED, InputError
from lakescale.store import writing
from lakescale.synthetic import Region, make_region
from lakescale.synthetic.region import CLASSES
from lakescale.synthetic.scenery import Scenery
from training.images import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from training.train_recipe import SyntheticRecipe

_CHUNK = 256
_CLEAR_SHARE = 0.5
"""A true lake of which less was seen is not judged."""
_HIDDEN = [CLASSES.index("cloud"), CLASSES.index("not seen")]
_LAKES, _IGNORE = "lake", "ignore"
_REACH_PX = 1 << 14
"""Lands lie up to half of this north or south of the anchor, and a sixteenth east of it, where the ice begins."""


@dataclass(frozen=True)
class MadeUp:
    """One land in one kind of picture."""

    group: SyntheticRecipe
    seed: int
    kind: str

    @property
    def stem(self) -> str:
        """Name of its cube."""
        return f"{self.group.name}-{self.seed}-{self.kind}"

    @property
    def place(self) -> str:
        """What ground it shows: of one seed, whatever its weather and season, it is the same."""
        return f"synthetic seed {self.seed}"

    @property
    def region(self) -> Region:
        """The land: a window somewhere on the sheet, by the seed."""
        region = make_region(
            self.group.size, seed=self.seed, dates=self.group.dates, scenery=_scenery(self.group.scenery)
        )
        row, col = np.random.default_rng(self.seed).integers(0, _REACH_PX, 2).tolist()
        return replace(region, row=row - _REACH_PX // 2, col=col // 16)

    def write(self, folder: Path, client: Client | None) -> list[tuple[Image, gpd.GeoDataFrame]]:
        """Write its cube and its labels, as far as they are not there; give an image for each date, and its labels."""
        region, cube = self.region, folder / f"{self.stem}.zarr"
        scenes = [self._scene(region, date) for date in self.group.dates]
        write_cube(scenes, cube, chunks=_CHUNK, client=client)
        images = [Image(f"{self.stem}_{date}", str(cube), date) for date in self.group.dates]
        return [(image, self._labels(region, image, folder, client)) for image in images]

    def _scene(self, region: Region, date: str) -> Any:
        scene = region.scene(date, kind=self.kind, chunks=_CHUNK).sel({BAND: [RED, GREEN, BLUE]})
        return scene.assign_attrs(source=f"{scene.attrs['source']} {region.scenery}")

    def _labels(self, region: Region, image: Image, folder: Path, client: Client | None) -> gpd.GeoDataFrame:
        file = folder / f"{image.name}.labels.parquet"
        if file.is_file():
            return gpd.read_parquet(file)
        labels = label_region(region, image.date, client)
        partial = file.with_suffix(".partial")
        with writing(file):
            labels.to_parquet(partial)
            partial.replace(file)
        return labels


def list_made_up(groups: tuple[SyntheticRecipe, ...]) -> Iterator[MadeUp]:
    """List the lands of a recipe; raise `InputError` for two that would have one name."""
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise InputError(f"two groups of one name: {', '.join(names)}", "data.synthetic", "name them apart")
    for group in groups:
        for k, seed in enumerate(group.seeds):
            kinds = group.kinds if not group.kind_by_seed else (group.kinds[k % len(group.kinds)],)
            yield from (MadeUp(group, one, kind) for one, kind in product([seed], kinds))


def label_region(region: Region, date: str, client: Client | None = None) -> gpd.GeoDataFrame:
    """Label a region on a day: lakes with open water; and to be ignored, what nobody can tell from the picture.

    Ignored are lakes that ice and snow cover wholly, those mostly under cloud or outside the swath, and what of other
    lakes lies under cloud.

    Returns
    -------
    geopandas.GeoDataFrame
        Columns ``kind`` (``lake``, ``ignore``), ``state`` (see `lakescale.synthetic.Region.lakes`) and ``geometry``.
    """
    truth = region.lakes(date)
    hidden = (truth["state"] == "lidded") | (truth["clear_share"] < _CLEAR_SHARE)
    covered = region.classes(date, chunks=_CHUNK).isin(_HIDDEN) & (region.truth(date, chunks=_CHUNK) > 0)
    (clouds,) = compute(polygonize(covered), client=client)
    lakes = truth[["state", "geometry"]].assign(kind=np.where(hidden, _IGNORE, _LAKES))
    parts = [lakes, clouds[["geometry"]].assign(kind=_IGNORE, state="")]
    frame = pd.concat([part for part in parts if len(part)] or [lakes], ignore_index=True)
    return gpd.GeoDataFrame(frame[["kind", "state", "geometry"]], geometry="geometry", crs=truth.crs)


def split_labels(labels: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Split labels into lakes and what is ignored."""
    return labels[labels["kind"] == _LAKES], labels[labels["kind"] == _IGNORE]


def _scenery(values: dict[str, Any]) -> Scenery:
    wrong = sorted(set(values) - set(Scenery.__dataclass_fields__))
    if wrong:
        known = ", ".join(Scenery.__dataclass_fields__)
        raise InputError(f"synthetic scenes have no {wrong[0]!r}", "data.synthetic: scenery", f"choose among {known}")
    return Scenery(**values)
