"""The preset `lakescale` as a slow plain loop, written from docs/fusion.md: one polygon with one other at a time.

Frames are geopandas frames with ``image`` and ``region_num`` or without; evidence belongs to an image or a region where
its frame says so, else to all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import shapely
from shapely.geometry import Polygon

SHAPES = ("smaller than the least area", "stream", "cut off as a stream or neck")
DEFAULTS = {
    "fill_lids": True, "neck": 0.4, "least_score": -2.0, "min_ice_share": 0.5, "sink_fill": 0.8, "sink_cover": 0.7,
    "min_sink_depth_m": 0.5, "min_sink_area_m2": 5000.0,
}  # fmt: skip


@dataclass(eq=False)
class Row:
    """A polygon, or a body of one, in the order of models, rows and bodies."""

    name: str
    row: int
    image: Any
    region: Any
    outline: Any
    given: str = "kept"
    level: int = 0
    depth: float = 99.0
    number: int = 0
    reason: str = ""
    by: tuple[str, int] = ("", -1)
    score: float = 0.0
    is_lake: bool = False
    lake: Any = None


def rows_of(frame, name):
    def column(key, nothing):
        return frame[key].tolist() if key in frame.columns else [nothing] * len(frame)

    values = zip(
        column("image", None), column("region_num", None), frame.geometry, column("reason", "kept"),
        column("level", 0), column("depth_m", 99.0), strict=True,
    )  # fmt: skip
    return [Row(name, k, *value) for k, value in enumerate(values)]


def meet(one, other):
    same_image = one.image is None or other.image is None or one.image == other.image
    return same_image and (one.region is None or other.region is None or one.region == other.region)


def shared(one, other):
    return one.outline.intersection(other.outline).area


def iou(one, other, area):
    return round(area / (one.outline.area + other.outline.area - area), 9)


def fill(outline):
    if outline.geom_type == "Polygon":
        return Polygon(outline.exterior)
    return shapely.union_all([Polygon(part.exterior) for part in outline.geoms])


def bodies_of(outline, neck):
    if not neck:
        return []
    reach = neck * sqrt(outline.area / pi)
    cores = [part for part in shapely.get_parts(outline.buffer(-reach)) if not part.is_empty]
    bodies, taken = [], Polygon()
    for core in sorted(cores, key=lambda part: -part.area):
        grown = core.buffer(reach)
        rest = [p for p in shapely.get_parts(grown.intersection(outline).difference(taken)) if p.geom_type == "Polygon"]
        body = max(rest, key=lambda part: part.area, default=Polygon())
        if body.area >= 0.1 * outline.area:
            bodies.append(body)
            taken = taken.union(grown.buffer(0.01 * reach))
    return bodies if len(bodies) > 1 else []


class World:
    """All frames, and the pieces that take part."""

    def __init__(self, models, sinks, color, ice, options):
        self.o = DEFAULTS | options
        self.names = list(models)
        self.sinks, self.color, self.ice = (
            None if frame is None else rows_of(frame, role)
            for role, frame in (("sinks", sinks), ("color", color), ("ice", ice))
        )
        self.polygons = [row for name, frame in models.items() for row in rows_of(frame, name)]
        for one in self.polygons:
            one.outline = fill(one.outline) if self.o["fill_lids"] else one.outline
        self.pieces = []

    def drop(self):
        """Steps 1 and 2, as far as a polygon is judged by itself."""
        wholes = []
        for one in self.polygons:
            one.reason = one.given
            if one.given not in ("kept", *SHAPES):
                continue
            on_ice = 1.0
            if self.ice is not None:
                on_ice = round(sum(shared(one, i) for i in self.ice if meet(one, i)) / one.outline.area, 9)
            wholes.append((one, on_ice))
        found = []
        for one, on_ice in wholes:
            bodies = [
                Row(one.name, one.row, one.image, one.region, body, one.given, reason=one.given)
                for body in bodies_of(one.outline, self.o["neck"])
            ]
            kept = [body for body in bodies if self.is_on_ice(body)]
            if on_ice < self.o["min_ice_share"]:
                one.reason = "not on the ice"
            found.append((one, bodies, kept))
        return found

    def is_on_ice(self, one):
        if self.ice is None:
            return True
        share = sum(shared(one, i) for i in self.ice if meet(one, i)) / one.outline.area
        return round(share, 9) >= self.o["min_ice_share"]

    def agreement(self, one, others):
        best = 0.0
        for other in [*others, *(self.sinks or []), *(self.color or [])]:
            if other.name != one.name and meet(one, other):
                later, earlier = (other, one) if other in others and self.comes_after(other, one) else (one, other)
                area = shared(later, earlier)
                if area > 0:
                    best = max(best, iou(one, other, area))
        return best

    def comes_after(self, one, other):
        return self.names.index(one.name) > self.names.index(other.name)


def plain_preset(models, sinks, color, ice, **options):
    """Give the lakes as (model, row, outline), and for each polygon its reason and what decided."""
    world = World(models, sinks, color, ice, options)
    told = choose_cuts(world)
    score_all(world)
    beat_rivals(world)
    fill_sinks(world)
    lakes = [(piece.name, piece.row, piece.lake) for piece in world.pieces if piece.lake is not None]
    return lakes, [tell(*one) for one in told]


def choose_cuts(world):
    """Choose the whole or the bodies of each polygon; give the polygons with what tells of them."""
    found = world.drop()
    wholes = [one for one, _, _ in found if one.reason != "not on the ice"]
    chosen = {}
    for one, bodies, on_ice in found:
        if one.reason == "not on the ice":
            continue
        agreed = world.agreement(one, wholes)
        each = [world.agreement(body, wholes) if body in on_ice else 0.0 for body in bodies]
        is_cut = len(bodies) > 1 and min(each) > agreed and min(each) >= 0.5
        chosen[one] = bodies if is_cut else [one]
    world.pieces = [piece for one in world.polygons for piece in chosen.get(one, [])]
    for number, piece in enumerate(world.pieces):
        piece.number = number
    return [(one, chosen.get(one, [one])) for one in world.polygons]


def score_all(world):
    for piece in world.pieces:
        solid = piece.outline.area / piece.outline.convex_hull.area
        piece.score = 6.5 * solid - 4.3
        if len(world.names) > 1 or world.sinks is not None or world.color is not None:
            piece.score = 5.4 * solid + 5.0 * world.agreement(piece, world.pieces) - 6.3
        piece.score = round(piece.score, 9)
        piece.is_lake = piece.given == "kept" and piece.score >= world.o["least_score"]
        if piece.given == "kept" and not piece.is_lake:
            piece.reason = "too little agrees with it"


def same_day(one, other):
    return (one.image, one.region) == (other.image, other.region)


def merge(piece, into):
    piece.reason, piece.by, piece.is_lake = "merged into another polygon", (into.name, into.row), False


def beat_rivals(world):
    taken = []
    for piece in sorted((p for p in world.pieces if p.is_lake), key=lambda p: (-p.score, p.number)):
        for better in taken:
            later, earlier = (piece, better) if piece.number > better.number else (better, piece)
            if same_day(piece, better) and shared(later, earlier) > 0:
                merge(piece, better)
                break
        else:
            taken.append(piece)


@dataclass(eq=False)
class Basin:
    """A sink on a day."""

    sink: Row
    members: list[Row]

    def area(self, piece):
        return shared(piece, self.sink)


def list_basins(world):
    basins = []
    days = dict.fromkeys((piece.image, piece.region) for piece in world.pieces)
    for sink in world.sinks or []:
        for day in days:
            members = [
                piece for piece in world.pieces
                if (piece.image, piece.region) == day and meet(piece, sink) and shared(piece, sink) > 0
                and shared(piece, sink) >= 0.5 * piece.outline.area and sink.depth >= world.o["min_sink_depth_m"]
            ]  # fmt: skip
            if members:
                basins.append(Basin(sink, members))
    return basins


def fill_sinks(world):
    """Steps 5 and 6."""
    basins = list_basins(world)
    fillers = {}
    for basin in basins:
        full = [
            p for p in basin.members if p.is_lake and basin.area(p) >= world.o["sink_fill"] * basin.sink.outline.area
        ]
        if full:
            fillers[basin] = max(full, key=lambda p: (basin.area(p), -p.number))
            basin.fillers = full
        else:
            basin.fillers = []
    filling = {piece for basin in basins for piece in basin.fillers}
    for piece in [p for p in world.pieces if p.is_lake and p not in filling]:
        holding = [basin for basin in fillers if piece in basin.members]
        if holding:
            merge(piece, fillers[min(holding, key=lambda b: (b.sink.outline.area, b.sink.row))])
    lidded = [basin for basin in basins if is_lidded(world, basin, filling)]
    taken = []
    for basin in sorted(lidded, key=lambda b: (b.sink.level, -b.sink.outline.area, b.sink.row)):
        if not any(excludes(basin, other) for other in taken):
            taken.append(basin)
    name_lakes(world, taken)


def is_lidded(world, basin, filling):
    if any(piece in filling for piece in basin.members):
        return False
    sink = basin.sink.outline
    hull = shapely.union_all([piece.outline for piece in basin.members]).convex_hull
    lakes = [piece for piece in basin.members if piece.is_lake]
    basin.outline = shapely.union(sink, shapely.union_all([p.outline for p in lakes])) if lakes else sink
    water = sum(basin.area(piece) for piece in basin.members) / sink.area
    if round(hull.intersection(sink).area / sink.area, 9) < world.o["sink_cover"] or round(water, 9) < 0.03:
        return False
    if not lakes and sink.area < world.o["min_sink_area_m2"]:
        return False
    day = basin.members[0]
    return not any(same_day(day, f) and basin.outline.intersection(f.outline).area > 0 for f in filling)


def excludes(one, other):
    if not same_day(one.members[0], other.members[0]):
        return False
    return bool(set(one.members) & set(other.members)) or one.outline.intersection(other.outline).area > 0


def name_lakes(world, taken):
    leads = {}
    for basin in taken:
        leads[basin] = min(basin.members, key=lambda p: (not p.is_lake, -p.outline.area, p.number))
    inside = {piece for basin in taken for piece in basin.members}
    for piece in [p for p in world.pieces if p.is_lake and p not in inside]:
        over = [b for b in taken if same_day(piece, leads[b]) and piece.outline.intersection(b.outline).area > 0]
        if over:
            most = min(over, key=lambda b: (-piece.outline.intersection(b.outline).area, b.sink.row))
            merge(piece, leads[most])
    for basin, lead in leads.items():
        for piece in basin.members:
            merge(piece, lead)
        lead.reason, lead.by, lead.is_lake, lead.lake = "kept", ("", -1), True, basin.outline
    for piece in world.pieces:
        if piece.is_lake and piece.lake is None:
            piece.lake = piece.outline


def tell(polygon, pieces):
    """Say of a polygon what its first lake says, or else its first piece."""
    kept = [piece for piece in pieces if piece.lake is not None]
    one = [*kept, *pieces, polygon][0]
    return one.reason, one.by
