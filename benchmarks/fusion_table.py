"""Strict F1 of color, index, a model and both presets of `fuse` on synthetic scenes, as a Markdown table.

    python -m benchmarks.fusion_table --model CHECKPOINT --seeds 1100-1109 --size 1024

Each seed is another land, on one of four days of the season (seed modulo 4), with lids, slush, streams, rock and cloud.
A true lake counts that has open water, 5000 m2 or more, and was seen by a half at least; what lies on other true lakes
is not judged. All methods get the candidates of one set of rules on shape, and the same least area.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import lakescale as ls
from lakescale.cluster import compute
from lakescale.evidence.cloud import assess_cloud, seen_without_cloud
from lakescale.evidence.color import index_mask
from lakescale.fusion import admit, covered_share, fuse
from lakescale.models import describe_checkpoint
from lakescale.polygons import areas_m2
from lakescale.rules import PolygonRules, outline_candidates
from lakescale.schema import COLOR, IMAGE, INDEX, KEPT, PROBABILITY, REASON, REGION_NUM, SEEN
from lakescale.synthetic.region import DATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import geopandas as gpd

    from lakescale.scoring import Score
    from lakescale.synthetic import Region

MODEL, SEED, LAKESCALE = "model", "seed", "lakescale"
RULES = PolygonRules()

_LOG = logging.getLogger(__name__)
_MARGIN_PX = 200
_CLEAR_SHARE = 0.5
_SINKS = {"min_depth_m": 0.5, "min_area_m2": 2000.0, "levels": None}


class Case(NamedTuple):
    """A scene, what each kind of evidence says of it, and the truth."""

    candidates: Mapping[str, gpd.GeoDataFrame]
    """Of ``model``, if there is one, ``index`` and ``color``; with their reasons."""
    sinks: gpd.GeoDataFrame
    ice: gpd.GeoDataFrame
    rasters: Mapping[str, Any]
    truth: gpd.GeoDataFrame
    hidden: gpd.GeoDataFrame
    """True lakes that are not judged."""


def draw_case(seed: int, size: int, model: Any = None) -> Case:
    """Make a scene and its evidence.

    Parameters
    ----------
    seed
        Of the land; it also chooses the day.
    size
        Side in pixels of 10 m.
    model
        A checkpoint's path, or a callable on 8-bit RGB; None for none.
    """
    region = ls.make_region(size, seed=seed)
    day = DATES[seed % len(DATES)]
    scene, colors = (region.scene(day, kind=kind, chunks=size) for kind in ("reflectance", "rgb8"))
    seen = seen_without_cloud(ls.seen_mask(scene), assess_cloud(scene))
    rasters = {SEEN: seen, COLOR: ls.color_mask(colors) & seen, INDEX: index_mask(scene) & seen}
    masks = {INDEX: rasters[INDEX], COLOR: rasters[COLOR]}
    if model is not None:
        pictures = scene if _wants_reflectance(model) else colors
        rasters[f"{PROBABILITY}_{MODEL}"] = ls.lake_probability(pictures, model)
    names = list(rasters)
    rasters = dict(zip(names, compute(*rasters.values()), strict=True))
    if model is not None:
        masks[MODEL] = (rasters[f"{PROBABILITY}_{MODEL}"] > _threshold(model)) & rasters[SEEN]
    outlined = compute(*(outline_candidates(masks[name], RULES) for name in masks), _find_sinks(region))
    *frames, sinks = (frame.reset_index(drop=True) for frame in outlined)
    ice = region.ice_outline()
    truth = region.lakes(day)
    truth = truth[(truth["state"] != "lidded") & (truth["area_m2"] >= RULES.min_area_m2)]
    is_judged = truth["clear_share"] >= _CLEAR_SHARE
    candidates = {name: admit(frame, ice=ice) for name, frame in zip(masks, frames, strict=True)}
    return Case(candidates, sinks, ice, rasters, truth[is_judged], truth[~is_judged])


def find_lakes(case: Case) -> dict[str, gpd.GeoDataFrame]:
    """Give the lakes by each kind of evidence alone, and by both presets."""
    kept = {name: frame[frame[REASON] == KEPT].reset_index(drop=True) for name, frame in case.candidates.items()}
    names = [name for name in (MODEL, INDEX) if name in kept]
    beside = {"color": kept[COLOR], "ice": case.ice}
    outermost = case.sinks[case.sinks["level"] == 0]
    found = {name: kept[name] for name in (COLOR, INDEX, MODEL) if name in kept}
    found[SEED] = fuse({name: kept[name] for name in names}, sinks=outermost, **beside, preset=SEED)
    found[LAKESCALE] = fuse(
        {name: case.candidates[name][[REASON, "geometry"]] for name in names},
        sinks=case.sinks, **beside, evidence=case.rasters, preset=LAKESCALE,
    )  # fmt: skip
    return {name: _judged(frame, case) for name, frame in found.items()}


def tabulate(cases: Mapping[int, Case]) -> dict[str, Score]:
    """Score each method on all scenes together, by the strict rules."""
    found = {seed: find_lakes(case) for seed, case in cases.items()}
    truth = _join({seed: case.truth for seed, case in cases.items()})
    methods = list(next(iter(found.values())))
    return {name: ls.score(_join({s: lakes[name] for s, lakes in found.items()}), truth) for name in methods}


def format_table(scores: Mapping[str, Score]) -> str:
    """Lay scores out as Markdown; the last column is how far `lakescale` is ahead."""
    lines = [
        "| lakes by | F1 | precision | recall | tp | fp | fn | lakescale ahead by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best = scores[LAKESCALE].f1
    for name, one in scores.items():
        ahead = "" if name == LAKESCALE else f"{best - one.f1:+.3f}"
        rates = f"{one.f1:.3f} | {one.precision:.3f} | {one.recall:.3f}"
        lines.append(f"| {name} | {rates} | {one.tp} | {one.fp} | {one.fn} | {ahead} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> str:
    """Draw the scenes, and give the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint; without one there is no row for a model")
    parser.add_argument("--seeds", default="1100-1109", help="first and last")
    parser.add_argument("--size", type=int, default=1024, help="side of a scene, pixels of 10 m")
    asked = parser.parse_args(arguments)
    first, _, last = asked.seeds.partition("-")
    cases = {}
    for seed in range(int(first), int(last or first) + 1):
        cases[seed] = draw_case(seed, asked.size, asked.model)
        _LOG.info("seed %d: %d true lakes", seed, len(cases[seed].truth))
    return format_table(tabulate(cases))


def _find_sinks(region: Region) -> Any:
    """Find the sinks of a DEM of stereo pairs, on a margin round the scene, so that its edge cuts none open."""
    wide = replace(
        region,
        row=region.row - _MARGIN_PX, col=region.col - _MARGIN_PX,
        height=region.height + 2 * _MARGIN_PX, width=region.width + 2 * _MARGIN_PX,
    )  # fmt: skip
    return ls.sink_regions(wide.dem(surface="arcticdem", chunks=wide.width), **_SINKS)


def _judged(lakes: gpd.GeoDataFrame, case: Case) -> gpd.GeoDataFrame:
    hidden = covered_share(lakes.geometry.values, case.hidden.geometry.values) > _CLEAR_SHARE
    return lakes[~hidden & (areas_m2(lakes.geometry) >= RULES.min_area_m2)]


def _join(frames: Mapping[int, gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    rows = [frame[["geometry"]].assign(**{IMAGE: str(seed), REGION_NUM: 1}) for seed, frame in frames.items()]
    return pd.concat(rows, ignore_index=True)


def _wants_reflectance(model: Any) -> bool:
    return isinstance(model, str) and describe_checkpoint(model).spec.values != "uint8"


def _threshold(model: Any) -> np.float32:
    return np.float32(describe_checkpoint(model).spec.threshold if isinstance(model, str) else 0.5)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.stdout.write(main() + "\n")
