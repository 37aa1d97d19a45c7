"""Lakes in a file against a reference in another: the score, as frames, as text, and as files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely

from lakescale import __version__
from lakescale.schema import LAKE_ID, REASON, InputError
from lakescale.scoring import FP, IGNORED, IMAGE, REGION_NUM, TP, VERDICT, Score, score
from pipelines.run_folder import MANIFEST, RunFolder, writing

if TYPE_CHECKING:
    from collections.abc import Iterable

SCORE_FILE, MATCHES_FILE = "score.json", "matches.gpkg"
MATCHES, MISSED = "matches", "missed"
"""Layers of the GeoPackage: every lake with its verdict; the references without a match."""

_KEYS = [IMAGE, REGION_NUM]
_COUNTS, _RATES = ("tp", "fp", "fn"), ("precision", "recall", "f1")
_RUN_LAKES, _LAKES_LAYER = "lakes.parquet", "lakes"
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")


def evaluate(
    lakes: str | Path,
    reference: str | Path,
    *,
    rules: str = "strict",
    out: str | Path | None = None,
    lakes_layer: str | None = None,
    reference_layer: str | None = None,
    as_one_group: bool = False,
) -> Score:
    """Score the lakes in a file against a reference, and write what came of it where asked.

    Parameters
    ----------
    lakes, reference
        GeoParquet, GeoPackage, Shapefile, GeoJSON or whatever else GDAL reads, or the folder of a run (its
        lakes.parquet). Areas are those in the reference's CRS; heights (Z) do not matter.
    rules
        ``strict`` or ``seed``; see `lakescale.score`.
    out
        A folder for ``score.json`` and ``matches.gpkg``; or a path ``NAME.json``, beside which ``NAME-matches.gpkg``
        is written. The JSON comes last, so that all is complete where it stands; earlier scores are replaced. Nothing
        is written by default.
    lakes_layer, reference_layer
        Layer to read. By default the only one, else ``lakes``, else the only one of polygons.
    as_one_group
        True scores all lakes against all references, whatever ``image`` and ``region_num`` say.

    Returns
    -------
    Score
        As of `lakescale.score`; indexes are rows of the files, from 0.

    Raises
    ------
    InputError
        A file that is missing, cannot be read, or has several layers; ``image`` and ``region_num`` in only one of the
        files (unless ``as_one_group``); an ``out`` that holds something else; whatever `lakescale.score` refuses.
    RunError
        When a file cannot be written; nothing is left of it then.
    """
    sources = {"lakes": (lakes, lakes_layer), "reference": (reference, reference_layer)}
    targets = None if out is None else _check_targets(Path(out), [lakes, reference])
    frames = {what: read_polygons(path, layer=layer, what=what) for what, (path, layer) in sources.items()}
    result = score(*_in_groups(frames, sources, as_one_group=as_one_group), rules=rules)
    if targets is not None:
        files = {what: _describe(path, layer, len(frames[what])) for what, (path, layer) in sources.items()}
        ids = frames["lakes"].get(LAKE_ID)
        _ScoreFolder(targets[0].parent).write(targets, summarize(result, files), _layers(result, ids))
    return result


def read_polygons(source: str | Path, *, layer: str | None = None, what: str = "lakes") -> gpd.GeoDataFrame:
    """Read the polygons of a vector file or of a run.

    Parameters
    ----------
    source
        A file that GDAL or pyarrow reads, or the folder of a run.
    layer
        Layer to read, see `evaluate`.
    what
        What it is, for messages: ``lakes`` or ``reference``.

    Returns
    -------
    geopandas.GeoDataFrame
        All rows and columns, numbered from 0, without Z; the frame may be empty.

    Raises
    ------
    InputError
        When there is no such file or layer, or it cannot be read.
    """
    path, problem = _file_of(source, what), ""
    if path.endswith(".parquet") and layer is not None:
        raise InputError("a GeoParquet file has no layers", path, f"leave out --{what}-layer")
    try:
        if path.endswith(".parquet"):
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, layer=_layer_of(path, layer, what), engine="pyogrio")
    except InputError:
        raise
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
    if problem:
        raise InputError(f"the {what} cannot be read: {problem}", path, "give a vector file, or the folder of a run")
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        raise InputError(f"the {what} have no geometries", path, "give a layer of polygons")
    return frame.set_geometry(shapely.force_2d(frame.geometry.values), crs=frame.crs).reset_index(drop=True)


def summarize(result: Score, files: dict[str, Any]) -> dict[str, Any]:
    """Give what ``score.json`` holds.

    Parameters
    ----------
    result
        A score.
    files
        What was scored, under any keys.

    Returns
    -------
    dict
        ``rules``, ``tp``, ``fp``, ``fn``, ``precision``, ``recall``, ``f1``; ``reasons`` (count of lakes by reason, for
        each verdict); ``crs`` of the comparison; ``groups``, a list of records with the six figures and ``image`` and
        ``region_num``, or ``group``; ``files``; ``lakescale``, the version.
    """
    reasons = {verdict: _count_reasons(result, verdict) for verdict in (TP, FP, IGNORED)}
    names = _KEYS if result.groups.index.nlevels > 1 else ["group"]
    groups = result.groups.rename_axis(index=names).reset_index()
    return {
        **result.to_dict(),
        "reasons": reasons,
        "crs": result.matches.crs.to_string() if result.matches.crs else None,
        "groups": [{str(k): _plain(v) for k, v in row.items()} for row in groups.to_dict("records")],
        "files": files,
        "lakescale": __version__,
    }


def format_score(result: Score) -> str:
    """Lay a score out as a table: a line for each group and one for all, then why lakes are false.

    Examples
    --------
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
    table = [[*map(str, name), *row] for name, row in zip(names, figures, strict=True)]
    lines = [f"{result.rules} rules", *_aligned(table)]
    for title, verdict in (("false positives", FP), ("neither true nor false", IGNORED)):
        counts = {reason: str(count) for reason, count in _count_reasons(result, verdict).items()}
        width = max(map(len, counts.values()), default=0)
        lines += [title] * bool(counts) + [f"  {count:>{width}}  {reason}" for reason, count in counts.items()]
    return "\n".join(lines)


class _ScoreFolder(RunFolder):
    """Where a score is written; its files appear under their names only when they are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, targets: tuple[Path, Path], summary: dict[str, Any], layers: dict[str, gpd.GeoDataFrame]) -> None:
        """Write the polygons, then the figures."""
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        figures, polygons = targets
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            figures.unlink(missing_ok=True)  # of an earlier score, whose polygons go
        self.publish(polygons.name, lambda path: _write_layers(path, layers))
        self.publish(figures.name, lambda path: path.write_text(text))


def _file_of(source: str | Path, what: str) -> str:
    """Give what to open: the source itself, or the lakes of a run."""
    if "://" in str(source) or str(source).startswith("/vsi"):
        return str(source)
    path = Path(source)
    if not path.exists():
        raise InputError(f"there is no such file for the {what}", str(source), "check the path")
    if (path / MANIFEST).is_file() and not (path / _RUN_LAKES).is_file():
        raise InputError("the run has no lakes", str(source), "finish it first: lakescale map")
    return str(path / _RUN_LAKES if (path / _RUN_LAKES).is_file() else path)


def _layer_of(path: str, asked: str | None, what: str) -> str:
    """Choose a layer: the one asked for, the only one, `lakes`, the only one of polygons."""
    layers = {str(name): str(kind) for name, kind in pyogrio.list_layers(path)}
    listed = ", ".join(layers)
    if asked is not None:
        if asked not in layers:
            raise InputError(f"there is no layer {asked!r}, only {listed}", path, f"give another --{what}-layer")
        return asked
    polygonal = [name for name, kind in layers.items() if "Polygon" in kind]
    for candidates in (list(layers), [name for name in layers if name == _LAKES_LAYER], polygonal):
        if len(candidates) == 1:
            return candidates[0]
    what_is = f"the {what} are one of {len(layers)} layers: {listed}" if layers else f"the {what} have no layers"
    raise InputError(what_is, path, f"choose one with --{what}-layer" if layers else "give a vector file")


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
        "add the columns, or score all as one group: --as-one-group",
    )


def _check_targets(out: Path, inputs: Iterable[str | Path]) -> tuple[Path, Path]:
    """Name the files to write, and refuse to replace what is no score."""
    named = out.suffix == ".json"
    figures = out if named else out / SCORE_FILE
    polygons = out.with_name(f"{out.stem}-{MATCHES_FILE}") if named else out / MATCHES_FILE
    used = {Path(path).resolve() for path in inputs}
    for path, is_ours in ((figures, _is_summary), (polygons, _is_matches)):
        if path.resolve() in used:
            raise InputError("the score would replace what is scored", str(path), "give another --out")
        if path.exists() and not is_ours(path):
            raise InputError("there is a file that is no score", str(path), "give another --out")
    return figures, polygons


def _is_summary(path: Path) -> bool:
    try:
        return {"rules", "groups", "files", "lakescale"} <= set(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return False


def _is_matches(path: Path) -> bool:
    try:
        return set(pyogrio.list_layers(path)[:, 0]) <= {MATCHES, MISSED}
    except pyogrio.errors.DataSourceError:
        return False


def _layers(result: Score, lake_ids: pd.Series[Any] | None) -> dict[str, gpd.GeoDataFrame]:
    """Make frames that a GeoPackage can hold; rows of the files become columns."""
    keys = [key for key in _KEYS if key in result.matches]
    matches = result.matches.assign(lake=result.matches.index)
    if lake_ids is not None:
        matches[LAKE_ID] = lake_ids
    missed = result.missed[[*keys, result.missed.active_geometry_name]].assign(reference=result.missed.index)
    first = ["lake", *([LAKE_ID] if lake_ids is not None else []), *keys, "reference"]
    rest = [column for column in matches if column not in first]
    return {
        MATCHES: matches[[*first, *rest]],
        MISSED: missed[[*keys, "reference", missed.active_geometry_name]],
    }


def _write_layers(path: Path, layers: dict[str, gpd.GeoDataFrame]) -> None:
    for layer, frame in layers.items():
        frame.to_file(
            path, layer=layer, driver="GPKG", engine="pyogrio", geometry_type="MultiPolygon", promote_to_multi=True
        )


def _describe(source: str | Path, layer: str | None, rows: int) -> dict[str, Any]:
    path = _file_of(source, "file")
    return {"path": str(source), "layer": layer, "polygons": rows, "sha256": _fingerprints(Path(path))}


def _fingerprints(path: Path) -> dict[str, str]:
    """Hash the files that make a source, by name; those of a URL are not known."""
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


def _count_reasons(result: Score, verdict: str) -> dict[str, int]:
    counts = result.matches.loc[result.matches[VERDICT] == verdict, REASON].value_counts()
    return {str(reason): int(count) for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _plain(value: Any) -> Any:
    """Make JSON of numpy's numbers and of what is missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _figures(row: Any) -> list[str]:
    return [*(str(getattr(row, name)) for name in _COUNTS), *(f"{getattr(row, name):.3f}" for name in _RATES)]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Pad columns, the first one to the left."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows]
