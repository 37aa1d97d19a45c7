"""What a run, a season, a store or what was written beside one is: state, dates, layers, grid, size, stages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lakescale.cube import layout_of, read_dates
from lakescale.schema import InputError, LakescaleError
from lakescale.storage import list_files, locate
from lakescale.storage import size_of as size_of_file
from lakescale.store import describe, is_store, open_store, stored_grid
from lakescale.store.listing import list_layers
from pipelines.run_folder import DATES, EVIDENCE, MANIFEST, QUARANTINE, ingest_manifest, partial_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lakescale.grid import Grid
    from lakescale.storage import Location

_CUBE, _LAYERS, _SINKS = "cube", "layers", ".sinks.json"
_SEASON, _SINKS_STORE, _ABOUT = "season", "sinks.zarr", "zarr.json"
_DEMO = "made_by_lakescale_demo.json"
_TOLD = ("state", "error", "started", "seconds", "cluster", "inputs", "notes", "machine", "models", "stages")
"""Of a manifest, told as it stands."""


def describe_path(source: str | Path) -> dict[str, Any]:
    """Say what lies at a path or a URL.

    Parameters
    ----------
    source
        Folder of a run or a season, or of a demo; a store of Zarr that lakescale wrote; what `lakescale sinks` wrote.

    Returns
    -------
    dict
        ``what`` it is, ``path``, ``bytes`` it takes, and as far as there are any ``state``, ``dates``, ``grid``,
        ``layers``, ``lakes``, ``stages`` and what else its manifest tells. All of it fits into JSON.

    Raises
    ------
    InputError
        When nothing is there, or nothing of lakescale's.
    """
    path = locate(source)
    if not path.exists():
        raise InputError("there is nothing", str(path), "give the folder of a run or a season, or a store")
    files = {name: told.size for name, told in list_files(path).items()} if path.is_dir() else {}
    sinks = read_json(path if path.name.endswith(_SINKS) else path.with_name(f"{path.stem}{_SINKS}"))
    manifest = read_json(path / MANIFEST) if MANIFEST in files else {}
    if _SEASON in manifest:
        told = _describe_season(path, manifest, files)
    elif "recipe" in manifest:
        told = _describe_run(path, manifest, files)
    elif "request" in sinks:
        told = _describe_sinks(path, sinks, files)
    elif is_store(path):
        told = _describe_store(path, files)
    elif _DEMO in files:
        told = _describe_demo(path, files)
    else:
        mend = "give the folder of a run or a season, a store, or what `lakescale sinks` wrote"
        raise InputError("it is nothing that lakescale wrote", str(path), mend)
    size = sum(files.values()) if path.is_dir() else size_of_file(path)
    return {"what": told.pop("what"), "path": str(path), **told, "bytes": size}


def read_json(path: Location) -> dict[str, Any]:
    """Read a file of JSON; empty where there is none, or it is none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, LakescaleError):
        return {}


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Say which grid it is, in plain values."""
    return {
        "shape": list(grid.shape),
        "pixel_m": grid.pixel_size_m,
        "crs": grid.crs.to_string(),
        "bounds": list(grid.bounds_xyxy),
    }


def _describe_run(path: Location, manifest: dict[str, Any], files: Mapping[str, int]) -> dict[str, Any]:
    evidence = EVIDENCE if f"{EVIDENCE}/{_ABOUT}" in files else partial_name(EVIDENCE)
    grid = dict(manifest.get("grid", {}))
    if grid and "bounds" in grid:
        grid["pixel_m"] = abs(grid["bounds"][2] - grid["bounds"][0]) / grid["shape"][1]
    return {
        "what": "run",
        **_of_manifest(manifest),
        "dates": [manifest["date"]] if "date" in manifest else [],
        "grid": grid,
        **{name: manifest[name] for name in ("lakes", "area_m2", "candidates") if name in manifest},
        "layers": _layers_of(path / evidence, _within(files, evidence)),
    }


def _describe_season(path: Location, manifest: dict[str, Any], files: Mapping[str, int]) -> dict[str, Any]:
    told, dates = manifest[_SEASON], []
    for day in told.get(DATES, ()):
        one = read_json(path / DATES / day / MANIFEST)
        stages = one.get("stages", {})
        peak = max((stage.get("peak_memory_mb", 0) for stage in stages.values()), default=0)
        facts = {"lakes": one.get("lakes"), "area_m2": one.get("area_m2"), "seconds": one.get("seconds")}
        dates.append({"date": day, "state": one.get("state", "missing"), **facts, "peak_memory_mb": peak or None})
    catalogue = told.get("catalogue", {})
    left_out = _read_quarantine(path / QUARANTINE) if QUARANTINE in files else []
    return {
        "what": "season",
        **_of_manifest(manifest),
        "dates": dates,
        **{name: catalogue[name] for name in ("lakes", "tracks", "events") if name in catalogue},
        "left_out": left_out,
        "predicted": told.get("predicted", {}),
        "measured": told.get("measured", {}),
        "layers": _layers_of(path / _SINKS_STORE, _within(files, _SINKS_STORE)),
    }


def _read_quarantine(path: Location) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    raise InputError("the list of scenes left out is damaged", str(path), "run the season again: it writes it anew")


def _describe_sinks(path: Location, manifest: dict[str, Any], files: Mapping[str, int]) -> dict[str, Any]:
    request = {name: value for name, value in manifest["request"].items() if value is not None}
    grid = {"grid": describe_grid(stored_grid(_open(path)))} if _ABOUT in files else {}
    return {
        "what": "sinks of a DEM", **_of_manifest(manifest), "request": request, **grid,
        "layers": _layers_of(path, files),
    }  # fmt: skip


def _describe_store(path: Location, files: Mapping[str, int]) -> dict[str, Any]:
    group = _open(path)
    told: dict[str, Any] = {"grid": describe_grid(stored_grid(group))}
    if describe(group)["kind"] != _CUBE:
        layers = _layers_of(path, files)
        left = sum(one["chunks_left"] for one in layers)
        return {"what": "store of layers", "state": "unfinished" if left else "finished", **told, "layers": layers}
    layout, states = layout_of(path), read_dates(path)
    chunks = len(layout.commits(path).indices(0))
    dates = [
        {"date": day, "chunks": chunks, "chunks_left": one.chunks_left, "source": str(one.attrs.get("source", ""))}
        for day, one in states.items()
    ]
    told |= {"bands": list(layout.bands), "dtype": layout.dtype, "chunk": list(layout.chunk), "dates": dates}
    state = "unfinished" if any(one["chunks_left"] for one in dates) else "finished"
    return {"what": "cube", **_of_manifest(read_json(ingest_manifest(path))), "state": state, **told}


def _describe_demo(path: Location, files: Mapping[str, int]) -> dict[str, Any]:
    days = sorted(name.partition("/")[0] for name in files if name.count("/") == 1 and name.endswith(f"/{MANIFEST}"))
    return {"what": "demo", **read_json(path / _DEMO), "dates": days, "scores": read_json(path / "score.json")}


def _open(path: Location) -> Any:
    """Open a store of either kind."""
    try:
        return open_store(path, _LAYERS)
    except InputError:
        return open_store(path, _CUBE)


def _within(files: Mapping[str, int], folder: str) -> dict[str, int]:
    return {name.removeprefix(f"{folder}/"): size for name, size in files.items() if name.startswith(f"{folder}/")}


def _layers_of(store: Location, files: Mapping[str, int]) -> list[dict[str, Any]]:
    """Tell the layers of a store with these files; none where it is no store."""
    if _ABOUT not in files:
        return []
    return [
        {
            "name": one.name, "dtype": one.dtype, "chunk": list(one.chunk), "chunks": one.chunks,
            "chunks_left": one.chunks_left, "bytes": sum(_within(files, one.name).values()),
        }
        for one in list_layers(store, _open(store), files)
    ]  # fmt: skip


def _of_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    version = {"lakescale": manifest["versions"]["lakescale"]} if "versions" in manifest else {}
    return {name: manifest[name] for name in _TOLD if name in manifest} | version
