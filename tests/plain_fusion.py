"""The seed's five steps of DOMAIN.md as a slow plain loop, one polygon with one other at a time.

Rows are of geopandas frames with ``image`` and ``region_num``; a sink or ice polygon belongs to a region where its
frame says so, else to all. The options put the seed's errors back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass
class Row:
    """One polygon."""

    model: str
    row: int
    image: Any
    region: Any
    geometry: Any
    fate: str = ""
    lakes: list[Any] = field(default_factory=list)


def rows_of(frame, name):
    columns = {column: frame[column].tolist() for column in ("image", "region_num") if column in frame.columns}
    nothing = [None] * len(frame)
    keys = zip(columns.get("image", nothing), columns.get("region_num", nothing), strict=True)
    return [Row(name, k, *key, g) for k, (key, g) in enumerate(zip(keys, frame.geometry, strict=True))]


def same(one, other):
    return one is None or other is None or one == other


def plain_fuse(
    sam, deeplab, sinks, color, ice, *, pool_dates=False, clip_revived=False, touching=False, polygons_only=False
):
    """Give the lakes as (model, row, outline), in the order of models and rows; and the fate of each polygon."""
    sam, deeplab = rows_of(sam, "sam"), rows_of(deeplab, "deeplab")
    sinks, color, ice = (rows_of(frame, "") for frame in (sinks, color, ice))
    overlap = touch if touching else share_area
    for image, region in sorted({(row.image, row.region) for row in sam + deeplab}, key=str):
        m_rows, d_rows = ([r for r in rows if (r.image, r.region) == (image, region)] for rows in (sam, deeplab))
        if not m_rows:
            m_rows, d_rows = d_rows, []
        t_rows, c_rows, i_rows = ([r for r in rows if same(r.region, region)] for rows in (sinks, color, ice))
        if not pool_dates:
            c_rows = [row for row in c_rows if same(row.image, image)]
        lost = contest_sinks(m_rows, t_rows, c_rows, overlap)
        judge_first(m_rows, t_rows, c_rows, lost, overlap, clip_revived)
        judge_second(d_rows, m_rows, t_rows + c_rows, overlap)
        for row in m_rows + d_rows:
            finish(row, i_rows, overlap, polygons_only)
    every = sam + deeplab
    return [(row.model, row.row, lake) for row in every for lake in row.lakes], [row.fate for row in every]


def touch(a, b):
    return a.geometry.intersects(b.geometry)


def share_area(a, b):
    return a.geometry.intersection(b.geometry).area > 0


def fits(one, other):
    ratio = Fraction(one.geometry.area) / Fraction(other.geometry.area)
    return Fraction(7, 10) < ratio < Fraction(14, 10)


def contest_sinks(m_rows, t_rows, c_rows, overlap):
    """Step 1: the sinks that each M lost."""
    total = []
    for m in m_rows:
        shared = 0.0
        for c in c_rows:
            if overlap(m, c):
                shared += m.geometry.intersection(c.geometry).area
        total.append(shared)
    lost = [[] for _ in m_rows]
    for t in t_rows:
        over = [k for k, m in enumerate(m_rows) if overlap(m, t)]
        best = None
        for k in over:
            if best is None or total[k] > total[best]:
                best = k
        for k in over:
            if k != best:
                lost[k].append(t)
    return lost


def judge_first(m_rows, t_rows, c_rows, lost, overlap, clip_revived):
    """Steps 2 and 3."""
    for m, sinks in zip(m_rows, lost, strict=True):
        if not sinks:
            backed = any(overlap(m, other) for other in t_rows + c_rows)
            m.fate, m.lakes = ("kept", [m.geometry]) if backed else ("no evidence", [])
        elif any(overlap(m, c) and fits(m, c) for c in c_rows):
            m.fate, m.lakes = "kept", [m.geometry]
            if clip_revived:
                m.lakes = [m.geometry.intersection(t.geometry) for t in sinks]
        else:
            m.fate = "set aside"


def judge_second(d_rows, m_rows, others, overlap):
    """Step 4."""
    for d in d_rows:
        if any(overlap(d, m) for m in m_rows):
            d.fate = "replaced"
        elif any(overlap(d, other) and fits(d, other) for other in others):
            d.fate, d.lakes = "kept", [d.geometry]
        else:
            d.fate = "no fit"


def finish(row, i_rows, overlap, polygons_only):
    """Step 5; and what is no polygon."""
    if row.fate != "kept":
        return
    pieces = [Row(row.model, row.row, row.image, row.region, lake) for lake in row.lakes]
    on_ice = [piece.geometry for piece in pieces if any(overlap(piece, i) for i in i_rows)]
    row.lakes = [lake for lake in on_ice if lake.area > 0 and (lake.geom_type == "Polygon" or not polygons_only)]
    if not row.lakes:
        row.fate = "no polygon" if on_ice else "off the ice"
