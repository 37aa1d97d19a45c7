"""The files of a score: figures as JSON, lakes as a GeoPackage, a curve as CSV, a picture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyogrio

from lakescale import __version__
from lakescale.schema import IMAGE, LAKE_ID, REASON, REGION_NUM, InputError, LakescaleError
from lakescale.scoring import FP, IGNORED, TP, VERDICT
from lakescale.storage import Location, Remote, fetched, locate, require_writable
from pipelines.run_folder import publish, writing
from pipelines.vector_files import file_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import geopandas as gpd

    from lakescale.pixel_scoring import PixelScore
    from lakescale.scoring import Score

SCORE_FILE, MATCHES_FILE, CURVE_FILE, PICTURE_FILE = "score.json", "matches.gpkg", "curve.csv", "score.png"
MATCHES, MISSED, OUTSIDE = "matches", "missed", "outside"
"""Layers of the GeoPackage: every lake with its verdict; the references without a match; lakes in no region."""

_KEYS = [IMAGE, REGION_NUM]
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """Everything that was found."""

    score: Score
    areas: pd.DataFrame = field(repr=False)
    """As of `lakescale.pixel_scoring.score_areas`."""
    pixels: PixelScore | None
    outside: gpd.GeoDataFrame = field(repr=False)
    """Lakes that lie in no region, which were not scored."""
    notes: list[str]
    """What was done to the input, in words."""
    files: dict[str, Any] = field(repr=False)
    """What was read."""
    lake_ids: pd.Series[Any] | None = field(repr=False)


class Targets(NamedTuple):
    """Where the files go."""

    figures: Location
    polygons: Location
    curve: Location
    picture: Location


def find_targets(out: Location, inputs: Iterable[str | Path]) -> Targets:
    """Name the files to write, and refuse to replace what is no score."""
    targets = Targets(out / SCORE_FILE, out / MATCHES_FILE, out / CURVE_FILE, out / PICTURE_FILE)
    if out.suffix == ".json":
        polygons, curve = (out.with_name(f"{out.stem}-{name}") for name in (MATCHES_FILE, CURVE_FILE))
        targets = Targets(out, polygons, curve, out.with_suffix(".png"))
    used = {locate(path).resolve() for path in inputs}
    is_score = is_summary(targets.figures)
    ours = (is_score, is_matches(targets.polygons), is_score, is_score)  # of a CSV or PNG its neighbour tells
    for path, is_ours in zip(targets, ours, strict=True):
        if path.resolve() in used:
            raise InputError("the score would replace what is scored", str(path), "give another --out")
        if path.exists() and not is_ours:
            raise InputError("there is a file that is no score", str(path), "give another --out")
    return targets


def write_score(found: Evaluation, targets: Targets, *, report: bool) -> None:
    """Write the polygons, the curve and the picture, and the figures last; earlier ones are replaced."""
    text = json.dumps(summarize(found), indent=2, allow_nan=False) + "\n"
    with writing(targets.figures.parent):
        require_writable(targets.figures.parent)
        for path in (targets.figures, targets.curve, targets.picture):
            path.unlink(missing_ok=True)  # of an earlier score, whose polygons go
    publish(targets.polygons, lambda path: _write_layers(path, _layers(found)))
    if found.pixels is not None:
        curve = found.pixels.curve
        publish(targets.curve, lambda path: curve.to_csv(path, index=False))
    if report:
        from lakescale.score_report import draw_score  # noqa: PLC0415  (matplotlib: half a second)

        publish(targets.picture, lambda path: draw_score(path, found.score, pixels=found.pixels))
    publish(targets.figures, lambda path: path.write_text(text))


def summarize(found: Evaluation) -> dict[str, Any]:
    """Give what ``score.json`` holds.

    Returns
    -------
    dict
        ``rules``, ``tp``, ``fp``, ``fn``, ``precision``, ``recall``, ``f1``; ``reasons`` (count of lakes by reason, for
        each verdict); ``crs`` of the comparison; ``areas`` and ``pixels`` (None without a probability), as of
        `lakescale.pixel_scoring`; ``mended`` (invalid polygons by frame), ``outside`` (lakes in no region, not scored)
        and ``notes``; ``groups``, a list of records with the six figures, ``areas``, and ``image`` and ``region_num``,
        or ``group``; ``files``; ``lakescale``, the version.
    """
    result = found.score
    *by_group, total = ({k: float(v) for k, v in row.items()} for row in found.areas.to_dict("records"))
    names = _KEYS if result.groups.index.nlevels > 1 else ["group"]
    records = result.groups.rename_axis(index=names).reset_index().to_dict("records")
    groups = [{str(k): _plain(v) for k, v in row.items()} for row in records]
    return {
        **result.to_dict(),
        "reasons": {verdict: count_reasons(result, verdict) for verdict in (TP, FP, IGNORED)},
        "crs": result.matches.crs.to_string() if result.matches.crs else None,
        "areas": total,
        "pixels": None if found.pixels is None else found.pixels.to_dict(),
        "mended": result.mended,
        "outside": len(found.outside),
        "notes": found.notes,
        "groups": [{**row, "areas": area} for row, area in zip(groups, by_group or [total], strict=False)],
        "files": found.files,
        "lakescale": __version__,
    }


def describe_file(source: str | Path, layer: str | None, rows: int) -> dict[str, Any]:
    """Say which file was read."""
    path = file_of(source, "file")
    return {"path": str(source), "layer": layer, "polygons": rows, "sha256": _fingerprints(locate(path))}


def count_reasons(result: Score, verdict: str) -> dict[str, int]:
    """Count the lakes of a verdict by reason, the most frequent first."""
    counts = result.matches.loc[result.matches[VERDICT] == verdict, REASON].value_counts()
    return {str(reason): int(count) for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def is_summary(path: Location) -> bool:
    """Tell a ``score.json`` from other files."""
    try:
        return {"rules", "groups", "files", "lakescale"} <= set(json.loads(path.read_text()))
    except LakescaleError:
        raise
    except (OSError, ValueError, TypeError):
        return False


def is_matches(path: Location) -> bool:
    """Tell a ``matches.gpkg`` from other files."""
    try:
        with fetched(str(path)) as here:
            return set(pyogrio.list_layers(here)[:, 0]) <= {MATCHES, MISSED, OUTSIDE}
    except (pyogrio.errors.DataSourceError, InputError):
        return False


def _layers(found: Evaluation) -> dict[str, gpd.GeoDataFrame]:
    """Make frames that a GeoPackage can hold; rows of the files become columns."""
    result, ids = found.score, found.lake_ids
    keys = [key for key in _KEYS if key in result.matches]
    matches = result.matches.assign(lake=result.matches.index)
    if ids is not None:
        matches[LAKE_ID] = ids
    first = ["lake", *([LAKE_ID] if ids is not None else []), *keys, "reference"]
    rest = [column for column in matches if column not in first]
    missed, outside = result.missed, found.outside
    layers = {
        MATCHES: matches[[*first, *rest]],
        MISSED: missed[[*keys, missed.active_geometry_name]].assign(reference=missed.index),
    }
    if len(outside):
        layers[OUTSIDE] = outside[[outside.active_geometry_name]].assign(lake=outside.index)
    return layers


def _write_layers(path: Path, layers: dict[str, gpd.GeoDataFrame]) -> None:
    for layer, frame in layers.items():
        frame.to_file(
            path, layer=layer, driver="GPKG", engine="pyogrio", geometry_type="MultiPolygon", promote_to_multi=True
        )


def _fingerprints(path: Location) -> dict[str, str]:
    """Hash the files that make a source, by name; those of a URL are not known."""
    if isinstance(path, Remote):
        return {}
    if path.is_dir():
        parts = sorted(part for part in path.iterdir() if part.is_file())
    elif path.suffix.lower() == ".shp":
        parts = [path.with_suffix(suffix) for suffix in _SHAPEFILE_PARTS]
    else:
        parts = [path]
    found = {}
    for part in parts:
        if part.is_file():
            with part.open("rb") as file:
                found[part.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _plain(value: Any) -> Any:
    """Make JSON of numpy's numbers and of what is missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
