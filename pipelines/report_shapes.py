"""Outlines for the eye: simplified, in half pixels, each vertex told by its step from the one before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.report_read import Frame

Outline: TypeAlias = list[list[list[int]]]
"""Of one shape: its polygons, of each its rings (shell first), of each ``x, y`` of the first vertex and ``dx, dy`` to
each next one, in half pixels from the upper left corner, y down; the last vertex is not repeated."""

STEPS = 2
"""Steps of a coordinate a pixel."""
_TOLERANCES_PX = (0.75, 1.5, 3.0, 6.0)
"""0.75: the stairs of a diagonal edge go, and no more."""
_LEAST_VERTICES, _FEW_VERTICES = 3, 9
"""What has so few stays as it is: a pixel would become a triangle."""


@dataclass(frozen=True)
class Drawn:
    """Outlines that fit a number of bytes."""

    outlines: list[Outline]
    rows: NDArray[np.int64]
    """Of the shapes that are drawn, in the order of the outlines."""
    tolerance_px: float
    """How far an outline may lie from the true one, beside the half step of its coordinates."""


def draw(shapes: NDArray[Any], frame: Frame, *, most_bytes: int) -> Drawn:
    """Simplify outlines as far as it takes to fit, and leave out the smallest where that is not enough.

    Parameters
    ----------
    shapes
        Polygons and MultiPolygons in the CRS of the frame.
    frame
        The grid that they are drawn on.
    most_bytes
        Of all outlines as JSON.
    """
    shapes = np.asarray(shapes, object)
    outlines: list[Outline] = []
    sizes, tolerance = np.zeros(0, np.int64), _TOLERANCES_PX[0]
    for tolerance in _TOLERANCES_PX:
        outlines = encode(shapes, frame, tolerance_px=tolerance)
        sizes = np.array([len(json.dumps(one, separators=(",", ":"))) + 1 for one in outlines], np.int64)
        if sizes.sum() <= most_bytes:
            return Drawn(outlines, np.arange(len(outlines)), tolerance)
    by_size = np.argsort(-shapely.area(shapes), kind="stable")
    kept = np.sort(by_size[np.cumsum(sizes[by_size]) <= most_bytes])
    return Drawn([outlines[k] for k in kept], kept, tolerance)


def encode(shapes: NDArray[Any], frame: Frame, *, tolerance_px: float) -> list[Outline]:
    """Simplify each shape by itself, and write its vertices as steps.

    A hole that is nothing in half pixels goes; a shell that is nothing becomes the pixel at its place.
    """
    is_plain = shapely.get_num_coordinates(shapes) <= _FEW_VERTICES
    simple = np.where(is_plain, shapes, shapely.simplify(shapes, tolerance_px * frame.pixel))
    parts, of_shape = shapely.get_parts(simple, return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    outlines: list[Outline] = [[] for _ in shapes]
    polygons: list[list[list[int]]] = [[] for _ in parts]
    for ring, part in zip(_steps_of(rings, frame), of_part, strict=True):
        is_shell = not polygons[part]
        if len(ring) >= 2 * _LEAST_VERTICES or is_shell:
            polygons[part].append(ring if len(ring) >= 2 * _LEAST_VERTICES else _pixel_at(ring))
    for polygon, shape in zip(polygons, of_shape, strict=True):
        outlines[shape].append(polygon)
    return outlines


def decode(outline: Outline) -> list[list[NDArray[np.int64]]]:
    """Give the vertices of an outline, in half pixels: of each polygon its rings, ``(n, 2)``, not closed."""
    return [[np.cumsum(np.reshape(ring, (-1, 2)), axis=0) for ring in polygon] for polygon in outline]


def _steps_of(rings: NDArray[Any], frame: Frame) -> list[list[int]]:
    """Round the vertices of rings, leave out those that do not move, and give steps."""
    coordinates, of_ring = shapely.get_coordinates(rings, return_index=True)
    origin, scale = np.array([frame.left, frame.top]), np.array([STEPS, -STEPS]) / frame.pixel
    places = np.rint((coordinates - origin) * scale).astype(np.int64)
    ends = np.flatnonzero(np.diff(of_ring, append=-1))
    steps = []
    for vertices in np.split(places, ends[:-1] + 1) if len(rings) else []:
        moves = np.any(np.diff(vertices, axis=0) != 0, axis=1)  # the last vertex repeats the first: it goes, too
        kept = vertices[:-1][moves]
        kept = kept if len(kept) else vertices[:1]
        steps.append(np.diff(kept, axis=0, prepend=np.zeros((1, 2), np.int64)).ravel().tolist())
    return steps


def _pixel_at(ring: list[int]) -> list[int]:
    return [ring[0], ring[1], STEPS, 0, 0, STEPS, -STEPS, 0]
