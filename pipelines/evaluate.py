"""Lakes in a file against a reference in another: the score of lakes, of areas and of pixels, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakescale.cluster import open_cluster
from lakescale.dem import open_dem
from lakescale.pixel_scoring import PixelScore, score_areas, score_pixels
from lakescale.schema import IMAGE, LAKE_ID, PROBABILITY, REGION_NUM, InputError
from lakescale.scoring import FP, IGNORED, score
from lakescale.storage import locate
from lakescale.store import open_layer, open_store
from lakescale.store.layers import KIND
from pipelines.cup import assign_regions, read_regions
from pipelines.score_files import Evaluation, count_reasons, describe_file, find_targets, write_score
from pipelines.vector_files import read_polygons

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from lakescale.scoring import Score

_KEYS = [IMAGE, REGION_NUM]
_COUNTS, _RATES = ("tp", "fp", "fn"), ("precision", "recall", "f1")
_EVIDENCE = "evidence.zarr"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How files are scored."""

    rules: str = "strict"
    """``strict`` or ``seed``; see `lakescale.score`."""
    lakes_layer: str | None = None
    """Layer to read. By default the only one, else ``lakes``, else the only one of polygons."""
    reference_layer: str | None = None
    as_one_group: bool = False
    """True scores all lakes against all references, whatever ``image`` and ``region_num`` say."""
    image: str | None = None
    """Score this image alone; a file without a column ``image`` is taken to be of it."""
    regions: str | Path | None = None
    """Polygons with ``region_num``: they number the polygons of a file without that column, and bound the pixels.
    Nothing is cut. What lies in none of them is not scored, and told."""
    probability: str | Path | None = None
    """Raster of 0..1 to score pixel by pixel: a GeoTIFF, a store of layers, or the folder of a run."""
    probability_layer: str | None = None
    """Layer of the store; by default the only one whose name begins with ``probability``."""
    threshold: float = 0.5
    """Where the figures of the pixels are taken."""
    report: bool = False
    """Whether to draw ``score.png``."""
    cluster: str = "local"
    """Where pixels are counted: ``local``, ``threads``, or a scheduler's address; and how many workers it has."""
    workers: int | None = None
    memory_limit: str | None = None


def evaluate(lakes: str | Path, reference: str | Path, *, out: str | Path | None = None, **options: Any) -> Evaluation:
    """Score the lakes in a file against a reference, and write what came of it where asked.

    Parameters
    ----------
    lakes, reference
        GeoParquet, GeoPackage, Shapefile, GeoJSON or whatever else GDAL reads, or the folder of a run (its
        lakes.parquet). Areas are those in the reference's CRS; heights (Z) do not matter.
    out
        A folder for ``score.json``, ``matches.gpkg``, ``curve.csv`` (with a probability) and ``score.png`` (a report);
        or a path ``NAME.json``, beside which ``NAME-matches.gpkg``, ``NAME-curve.csv`` and ``NAME.png`` are written.
        The JSON comes last, so that all is complete where it stands; earlier scores are replaced. Nothing is written
        by default.
    **options
        See `ScoreOptions`.

    Returns
    -------
    Evaluation
        Indexes of its frames are rows of the files, from 0.

    Raises
    ------
    InputError
        A file that is missing, cannot be read, or has several layers; ``image`` and ``region_num`` in only one of the
        files (unless ``as_one_group``); an ``out`` that holds something else; whatever `lakescale.score` and
        `lakescale.score_pixels` refuse.
    RunError
        When a file cannot be written; nothing is left of it then.
    """
    asked = ScoreOptions(**options)
    if asked.report and out is None:
        raise InputError("a report needs a place", "report", "give --out")
    sources = {"lakes": (lakes, asked.lakes_layer), "reference": (reference, asked.reference_layer)}
    read = [path for path in (lakes, reference, asked.regions, asked.probability) if path is not None]
    targets = None if out is None else find_targets(locate(out), read)
    frames = {what: read_polygons(path, layer=layer, what=what) for what, (path, layer) in sources.items()}
    files = {what: describe_file(path, layer, len(frames[what])) for what, (path, layer) in sources.items()}
    regions = None if asked.regions is None else read_regions(asked.regions)
    inside, outside, notes = _placed(frames, regions, asked)
    own, other = _in_groups(inside, sources, as_one_group=asked.as_one_group)
    result = score(own, other, rules=asked.rules)
    found = Evaluation(
        score=result,
        areas=score_areas(own, other),
        pixels=_score_probability(other, regions, asked),
        outside=outside["lakes"],
        notes=[*notes, *result.notes],
        files=files,
        lake_ids=own.get(LAKE_ID),
    )
    if targets is not None:
        write_score(found, targets, report=asked.report)
    return found


def format_score(result: Score, areas: pd.DataFrame | None = None, pixels: PixelScore | None = None) -> str:
    """Lay a score out as a table: a line for each group and one for all, then why lakes are false.

    Parameters
    ----------
    result
        Of lakes.
    areas
        As of `lakescale.pixel_scoring.score_areas`: adds the share of the area that both have (IoU).
    pixels
        Adds a line about pixels.

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> reference = gpd.GeoDataFrame(geometry=shapely.box([0, 20], 0, [9, 29], 9), crs=3413)
    >>> lakes = gpd.GeoDataFrame(geometry=shapely.box([0, 20], 0, [9, 29], [9, 4]), crs=3413)
    >>> print(format_score(score(lakes, reference)))
    strict rules
         tp  fp  fn  precision  recall     f1
    all   1   1   1      0.500   0.500  0.500
    false positives
      1  area out of 50-160 %
    """
    grouped = result.groups.index.nlevels > 1
    names: list[Any] = [_KEYS, *result.groups.index, ("all", "")] if grouped else [("",), ("all",)]
    figures = [[*_COUNTS, *_RATES], *(_figures(row) for row in result.groups.itertuples() if grouped), _figures(result)]
    shares = [[]] * len(figures) if areas is None else [["area iou"], *([f"{iou:.3f}"] for iou in areas["iou"])]
    table = [[*map(str, name), *row, *share] for name, row, share in zip(names, figures, shares, strict=True)]
    lines = [f"{result.rules} rules", *_aligned(table)]
    for title, verdict in (("false positives", FP), ("neither true nor false", IGNORED)):
        counts = {reason: str(count) for reason, count in count_reasons(result, verdict).items()}
        width = max(map(len, counts.values()), default=0)
        lines += [title] * bool(counts) + [f"  {count:>{width}}  {reason}" for reason, count in counts.items()]
    return "\n".join(lines + ([] if pixels is None else [str(pixels)]))


def _placed(
    frames: dict[str, gpd.GeoDataFrame], regions: gpd.GeoDataFrame | None, asked: ScoreOptions
) -> tuple[dict[str, gpd.GeoDataFrame], dict[str, gpd.GeoDataFrame], list[str]]:
    """Name the image and number the regions where asked; what lies in no region comes apart."""
    if asked.as_one_group and (asked.image is not None or asked.regions is not None):
        what = "one group has neither image nor regions"
        raise InputError(what, "as_one_group", "leave out --as-one-group, or --image and --regions")
    inside, outside, notes = {}, {}, []
    for what, whole in frames.items():
        frame = whole if asked.image is None else _of_image(whole, asked.image, what)
        apart = frame.iloc[:0]
        if regions is not None and REGION_NUM not in frame:
            number = assign_regions(frame, regions, what=what)
            apart, frame = frame[number.isna()], frame[number.notna()].assign(**{REGION_NUM: number.dropna()})
        if len(apart):
            notes.append(f"{what}: {len(apart)} in no region, not scored")
        inside[what], outside[what] = frame, apart
    return inside, outside, notes


def _of_image(frame: gpd.GeoDataFrame, image: str, what: str) -> gpd.GeoDataFrame:
    if IMAGE not in frame:
        return frame.assign(**{IMAGE: image})
    kept = frame[frame[IMAGE] == image]
    if what == "reference" and not len(kept) and len(frame):
        there = ", ".join(map(str, frame[IMAGE].unique()[:6]))
        raise InputError(f"the reference has no image {image!r}, only {there}", "image", "choose one with --image")
    return kept


def _in_groups(
    frames: dict[str, gpd.GeoDataFrame], sources: dict[str, Any], *, as_one_group: bool
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """See that both frames go by image and region, or neither; an empty one goes by what the other has."""
    lakes, reference = frames["lakes"], frames["reference"]
    if as_one_group:
        return lakes.drop(columns=_KEYS, errors="ignore"), reference.drop(columns=_KEYS, errors="ignore")
    for frame, other in ((lakes, reference), (reference, lakes)):
        if not len(frame) and set(_KEYS) <= set(other):
            frame[_KEYS] = other.loc[[], _KEYS]
    has = {what: [key for key in _KEYS if key in frame] for what, frame in frames.items()}
    if all(keys == _KEYS for keys in has.values()) or not any(has.values()):
        return lakes, reference
    told = ", ".join(f"{what}: {' and '.join(keys) or 'neither'}" for what, keys in has.items())
    raise InputError(
        f"lakes are scored by {IMAGE} and {REGION_NUM}, which not both files have ({told})",
        ", ".join(str(sources[what][0]) for what, keys in has.items() if keys != _KEYS),
        "give --image and --regions, or score all as one group: --as-one-group",
    )


def _score_probability(
    reference: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | None, asked: ScoreOptions
) -> PixelScore | None:
    """Count the pixels of a probability on a cluster."""
    if asked.probability is None:
        return None
    images = reference[IMAGE].unique() if IMAGE in reference else []
    if len(images) > 1:
        what = f"a probability is of one image, the reference has {len(images)}"
        raise InputError(what, str(asked.probability), "choose one with --image")
    probability = _open_probability(str(asked.probability), asked.probability_layer)
    with open_cluster(asked.cluster, workers=asked.workers, memory_limit=asked.memory_limit) as client:
        return score_pixels(
            probability, reference, threshold=asked.threshold, within=regions, client=client, progress=True
        )


def _open_probability(source: str, layer: str | None) -> xr.DataArray:
    inner = locate(source) / _EVIDENCE
    path = str(inner) if inner.is_dir() else source
    if path.rstrip("/").endswith(".zarr"):
        return open_layer(path, layer or _find_layer(path))
    if layer is not None:
        raise InputError("only a store has layers", source, "leave out --probability-layer")
    return open_dem(path, limits=None).rename(PROBABILITY)  # any raster of one band: float32, NaN where void


def _find_layer(store: str) -> str:
    names = sorted(str(name) for name in open_store(locate(store), KIND).array_keys())
    found = [name for name in names if name.startswith(PROBABILITY)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} layers of the store are probabilities: {', '.join(found or names) or 'it is empty'}"
    raise InputError(what, store, "choose one with --probability-layer")


def _figures(row: Any) -> list[str]:
    return [*(str(getattr(row, name)) for name in _COUNTS), *(f"{getattr(row, name):.3f}" for name in _RATES)]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Pad columns, the first one to the left."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows]
