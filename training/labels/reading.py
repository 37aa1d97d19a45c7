"""Read the drawn lakes, on the pixels that they were drawn on."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine

from lakescale.polygons import to_map
from lakescale.schema import IMAGE, InputError
from training.annotations import Annotations

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSURE = "unsure"
"""Kind of what may or may not be a lake; the others are ``open`` and ``lid``, a lake with ice on it."""
_FILE = Path(__file__).with_name("lakes.geojson")


def labelled_images() -> list[str]:
    """Name the images that have labels: files, and one folder (22WEV, a file for each band)."""
    return list(_read()["images"])


def read_labels(image: str | Path) -> gpd.GeoDataFrame:
    """Read what was drawn on one image.

    Parameters
    ----------
    image
        The name of its file or folder, or a path that ends in it.

    Returns
    -------
    geopandas.GeoDataFrame
        Columns ``image``, ``kind`` (``open``, ``lid``, ``unsure``), ``hemisphere`` (``north``, ``south``) and
        ``geometry``, polygons in the image's CRS. Their vertices lie on corners of its pixels.

    Raises
    ------
    InputError
        When nothing was drawn on it.
    """
    name, told = Path(image).name, _read()
    if name not in told["images"]:
        raise InputError(
            "there are no labels of this image", str(image), "training.labels.labelled_images() lists them"
        )
    drawn = [one["properties"] for one in told["features"] if one["properties"][IMAGE] == name]
    columns = {column: [one[column] for one in drawn] for column in (IMAGE, "kind", "hemisphere")}
    rings = np.array([shapely.Polygon(one["pixels"]) for one in drawn], object)
    grid = told["images"][name]
    return gpd.GeoDataFrame(columns, geometry=to_map(rings, Affine(*grid["transform"])), crs=grid["crs"])


def read_annotations(images: Iterable[str | Path]) -> Annotations:
    """Read the labels of images as annotations: lakes with and without lids; what is unsure is ignored."""
    frames = {frame[IMAGE].iloc[0]: frame for frame in map(read_labels, images)}
    lakes = {name: frame[frame["kind"] != UNSURE] for name, frame in frames.items()}
    return Annotations(lakes, {name: frame[frame["kind"] == UNSURE] for name, frame in frames.items()})


@cache
def _read() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_FILE.read_text())
    return told
