"""What a run read: its inputs by role, each with what tells whether it is still the same."""

from __future__ import annotations

import datetime as dt
import glob
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakescale.storage import bare_url, is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipelines.recipe import MapRecipe

_STORE = "zarr.json"


def inputs_of(recipe: MapRecipe) -> dict[str, list[str]]:
    """List the sources that a recipe names, by their role; models are told with their weights' hashes."""
    named: dict[str, Any] = {
        "scene": recipe.scene.source,
        "dem": recipe.dem and recipe.dem.source,
        "ice": recipe.ice and recipe.ice.source,
        "aoi": recipe.aoi,
        "exclude": recipe.exclude,
        "grid": recipe.grid.like,
        "cup_regions": recipe.cup_regions,
    }
    return {role: [one] if isinstance(one, str) else list(one) for role, one in named.items() if one}


def describe_inputs(sources: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Describe inputs, as a manifest tells them.

    Parameters
    ----------
    sources
        Files, folders, globs, stores and URLs by role.

    Returns
    -------
    list of dict
        Of each ``role`` and ``source``; of what lies on a disk the number of ``files``, their ``bytes``, when the
        last of them was ``changed``, and a ``fingerprint`` of their names, sizes and times. Of a store only its
        metadata count. A URL is told without what may be secret.
    """
    return [_describe(role, str(source)) for role, listed in sources.items() for source in listed]


def _describe(role: str, source: str) -> dict[str, Any]:
    if is_url(source):
        return {"role": role, "source": bare_url(source)}
    stats = [(path, path.stat()) for path in _find_files(source)]
    if not stats:
        return {"role": role, "source": source}
    marks = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    changed = dt.datetime.fromtimestamp(max(stat.st_mtime for _, stat in stats), dt.UTC)
    return {
        "role": role,
        "source": source,
        "files": len(stats),
        "bytes": sum(stat.st_size for _, stat in stats),
        "changed": changed.isoformat(timespec="seconds"),
        "fingerprint": hashlib.sha256(repr(marks).encode()).hexdigest()[:32],
    }


def _find_files(source: str) -> list[Path]:
    path = Path(source)
    if path.suffix == ".zarr":
        return [one for one in (path / _STORE,) if one.is_file()]
    if path.is_dir():
        own = sorted(one for one in path.iterdir() if one.is_file())
        return own or sorted(one for one in path.rglob("*") if one.is_file())  # tiles in folders of their own
    found = [source] if path.is_file() else glob.glob(source, recursive=True)  # noqa: PTH207
    return sorted(Path(one) for one in found if Path(one).is_file())
