"""The whole job on a made-up region: scenes, terrain and ice to files, lakes from these, scores against the truth."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakescale.cluster import compute, open_cluster
from lakescale.cog import export_cog
from lakescale.evidence.color import color_mask, index_mask
from lakescale.fusion import covered_share
from lakescale.grid import Grid
from lakescale.polygons import polygonize
from lakescale.regions import fill_holes
from lakescale.report import Panel, draw_panels, overview
from lakescale.scene import open_scene, seen_mask
from lakescale.schema import AREA_M2, COLOR, IMAGE, INDEX, REGION_NUM, InputError
from lakescale.scoring import score
from lakescale.storage import local_path
from lakescale.synthetic import Region, make_region
from pipelines.map_lakes import map_lakes
from pipelines.recipe import read_recipe
from pipelines.run_folder import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import geopandas as gpd
    import xarray as xr
    from distributed import Client

_LOG = logging.getLogger(f"lakescale.{__name__}")

LAKES = "lakes"
DATES = ("2019-07-08", "2019-07-28")
MIN_AREA_M2 = 5000.0
CLEAR_SHARE = 0.5
"""A true lake of which less was seen is not judged."""
_MADE_BY = "made_by_lakescale_demo.json"
_PRODUCTS, _PARTIAL = ("score.json", "quicklook.png"), ".partial"
_DN = 10_000
_DEM_MARGIN_PX = 500


def run_demo(
    out: Path,
    *,
    size: int = 2048,
    seed: int = 1,
    cluster: str = "local",
    workers: int | None = None,
    memory_limit: str | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Make up two dates of an ice sheet, map them from files on disk, and score what is found against the truth.

    Parameters
    ----------
    out
        Folder: ``input/`` with the files that are mapped, a run for each date, ``score.json``, ``quicklook.png``.
    size
        Side of the region, pixels of 10 m.
    seed
        Another region for every number.
    cluster, workers, memory_limit
        As of `lakescale.cluster.open_cluster`.
    overwrite
        Whether an earlier demo in the folder may be replaced.

    Yields
    ------
    str
        Lines for the user, as things are done.

    Raises
    ------
    InputError
        When the folder holds something else.
    """
    out = local_path(out, "the folder of a demo")
    start = time.perf_counter()
    region = make_region(size, seed=seed, dates=DATES)
    _claim(out, {"size": size, "seed": seed}, overwrite=overwrite)
    with open_cluster(cluster, workers=workers, memory_limit=memory_limit) as client:
        yield f"making {size} x {size} pixels of ice, seed {seed}, two dates"
        inputs = write_inputs(region, out / "input", client)
        address = client.scheduler.address if cluster == "local" else cluster
        runs = {}
        for day in DATES:
            yield f"mapping {inputs[day]['reflectance']}"
            runs[day] = map_date(out / day, inputs[day], inputs["dem"], address)
        found = {name: [frames[name] for frames in runs.values()] for name in (COLOR, INDEX, LAKES)}
    truth = [judged(region, day) for day in DATES]
    scores = {name: score_dates(frames, truth) for name, frames in found.items()}
    panels = [_panel(runs[day], day, truth[k]) for k, day in enumerate(DATES)]
    publish(out / "quicklook.png", lambda path: draw_panels(path, panels))
    publish(out / "score.json", lambda path: path.write_text(json.dumps(scores, indent=2) + "\n"))
    yield from format_scores(scores)
    yield f"written to {out}: quicklook.png, score.json, a run for each date, and what went in, input"
    _LOG.info("done in %.0f s", time.perf_counter() - start)


def describe_plan(out: Path, *, size: int, seed: int) -> dict[str, Any]:
    """Say what a demo would make, without making it."""
    out = local_path(out, "the folder of a demo")
    region = make_region(size, seed=seed, dates=DATES)
    wide = size + 2 * _DEM_MARGIN_PX
    return {
        "folder": out,
        "dates": ", ".join(DATES),
        "scenes": f"{size} x {size} pixels of {region.resolution_m:g} m, {region.grid.crs.to_string()}, seed {seed}",
        "elevations": f"{wide} x {wide} pixels",
        "bytes before compression": size * size * len(DATES) * (2 * len(region.scene(DATES[0])) + 3) + 4 * wide * wide,
    }


def write_inputs(region: Region, folder: Path, client: Client) -> dict[str, Any]:
    """Write what a user would have: two images a date, elevations, the ice's outline; and the truth, for the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = replace(
        region,
        row=region.row - _DEM_MARGIN_PX, col=region.col - _DEM_MARGIN_PX,
        height=region.height + 2 * _DEM_MARGIN_PX, width=region.width + 2 * _DEM_MARGIN_PX,
    )  # fmt: skip
    ice, dem = folder / "ice_synthetic.gpkg", folder / "dem_synthetic.tif"
    region.ice_outline().to_file(ice)
    export_cog(wide.dem(surface="arcticdem"), dem, client=client)
    paths: dict[str, Any] = {"dem": {"dem": dem, "ice": ice}}
    for day in DATES:
        stamp = day.replace("-", "")
        image, colors = (folder / f"S2_{what}_{stamp}_N0208_synthetic.tif" for what in ("MSIL1C", "TCI"))
        export_cog(_as_stored(region.scene(day)), image, client=client)
        export_cog(region.scene(day, kind="rgb8"), colors, client=client)
        region.lakes(day).to_file(folder / f"truth_{day}.gpkg")
        paths[day] = {"reflectance": image, "rgb": colors}
    return paths


def map_date(out: Path, images: dict[str, Path], beside: dict[str, Path], cluster: str) -> dict[str, Any]:
    """Map one date; beside its lakes give what color and index find by themselves, and the image."""
    recipe = read_recipe(
        None,
        scene__source=str(images["reflectance"]),
        out=out,
        dem__source=str(beside["dem"]),
        ice=str(beside["ice"]),
        cluster__kind=cluster,
        cluster__dashboard=None if "://" in cluster else "none",
        rules__min_area_m2=MIN_AREA_M2,
    )
    result = map_lakes(recipe, overwrite=True)
    rgb, scene = open_scene(images["rgb"]), open_scene(images["reflectance"])
    water = {COLOR: color_mask(rgb), INDEX: index_mask(scene)}
    frames = [polygonize(fill_holes(mask), min_area_m2=MIN_AREA_M2) for mask in water.values()]
    *outlines, image = compute(*frames, overview(rgb, seen_mask(rgb)))
    alone = dict(zip(water, outlines, strict=True))
    return {**alone, LAKES: result.lakes, "image": np.asarray(image), "grid": Grid.of(rgb)}


def judged(region: Region, day: str) -> gpd.GeoDataFrame:
    """Take the true lakes with open water and of the least area; ``judged`` tells those that were seen well enough."""
    truth = region.lakes(day)
    truth = truth[(truth["state"] != "lidded") & (truth[AREA_M2] >= MIN_AREA_M2)].reset_index(drop=True)
    return truth.assign(judged=truth["clear_share"] >= CLEAR_SHARE)


def score_dates(found: list[gpd.GeoDataFrame], truth: list[gpd.GeoDataFrame]) -> dict[str, Any]:
    """Score the lakes of all dates, strict rules; what lies mostly on a lake that is not judged is left out."""
    lakes = [frame[~_on_unjudged(frame, true)] for frame, true in zip(found, truth, strict=True)]
    result = score(_dated(lakes), _dated([true[true["judged"]] for true in truth]), rules="strict")
    days = result.groups.droplevel(REGION_NUM).to_dict("index")
    left_out = sum(len(frame) for frame in found) - len(result.matches)
    return {**result.to_dict(), "not_judged": left_out, "dates": days}


def format_scores(scores: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lay the scores out as a table."""
    yield "strict rules, both dates    tp    fp    fn  precision  recall     f1"
    for name, one in scores.items():
        counts = "".join(f"{one[key]:6d}" for key in ("tp", "fp", "fn"))
        yield f"{name:<24}{counts}{one['precision']:11.3f}{one['recall']:8.3f}{one['f1']:7.3f}"


def _claim(out: Path, asked: dict[str, int], *, overwrite: bool) -> None:
    """Refuse a folder that holds something else than this demo."""
    told, refusal = out / _MADE_BY, ""
    if out.exists() and (not out.is_dir() or any(_PARTIAL not in inside.name for inside in out.iterdir())):
        earlier = _read_json(told)
        if earlier is None:
            raise InputError("the folder holds files that are no demo", str(out), "give another --out")
        if earlier != asked:
            refusal = f"the folder holds another demo (size {earlier.get('size')}, seed {earlier.get('seed')})"
    if refusal and not overwrite:
        raise InputError(refusal, str(out), "give another --out, or --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    for left_over in (*(out / name for name in _PRODUCTS), *out.rglob(f"*{_PARTIAL}*")):
        left_over.unlink(missing_ok=True)
    publish(told, lambda path: path.write_text(json.dumps(asked) + "\n"))


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read what an earlier demo was asked: nothing where the file is damaged, None where there is none."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except ValueError:
        return {}


def _as_stored(scene: xr.DataArray) -> xr.DataArray:
    """Turn reflectance into the numbers of a Sentinel-2 file: 0 is no data."""
    dn = (scene * np.float32(_DN)).round().clip(1, 65535).fillna(0).astype(np.uint16)
    codes = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir1": "B11", "cirrus": "B10"}
    named = dn.assign_coords(band=[codes[str(name)] for name in scene["band"].values])
    return named.rio.write_nodata(0)


def _on_unjudged(lakes: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> Any:
    hidden = truth[~truth["judged"]]
    return covered_share(lakes.geometry.values, hidden.geometry.values) > CLEAR_SHARE


def _dated(frames: list[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    columns = [
        frame[["geometry"]].assign(**{IMAGE: day, REGION_NUM: 1}) for day, frame in zip(DATES, frames, strict=True)
    ]
    return pd.concat(columns, ignore_index=True)


def _panel(run: dict[str, Any], day: str, truth: gpd.GeoDataFrame) -> Panel:
    return Panel(run["image"], run["grid"], run[LAKES], truth[truth["judged"]], f"{day}: {len(run[LAKES])} lakes")
