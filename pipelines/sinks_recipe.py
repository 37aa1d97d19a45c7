"""The recipe of a sinks run: which elevations, how they are filled, which sinks count, what is written."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from lakescale.schema import DEM, InputError
from lakescale.storage import Location  # noqa: TC001  (a NamedTuple reads it)
from pipelines.recipe import ClusterRecipe, in_our_words, nest
from pipelines.strict import Place, Strict

_ENDINGS = (".zarr", ".tif", ".tiff", ".parquet")
_OPTIONS = {"out": "OUT", "source": "DEM", "cluster.kind": "--cluster"}


class Outputs(NamedTuple):
    """The files of a run, by the ending of OUT; all of them lie beside each other."""

    store: Location
    """Layers ``filled`` and ``sink_depth``: OUT itself, or a store that is there for the length of the run."""
    is_kept: bool
    """Whether the store stays."""
    depth: Location | None
    """GeoTIFF of the sink depth."""
    filled: Location | None
    """GeoTIFF of the filled DEM."""
    drained: Location | None
    """GeoTIFF of the filled DEM with flats that drain."""
    regions: Location
    manifest: Location
    """What was asked for, and how far it is."""
    dask_report: Location
    """Dask's report, where it is asked for."""
    work: Location
    """Folder of what waits between the stages of a run, while it is on."""

    @property
    def store_has_depth(self) -> bool:
        """Whether the store holds depths beside the filled DEM."""
        return self.is_kept or self.depth is not None

    @property
    def files(self) -> tuple[Location, ...]:
        """The files that have their names only when they are whole."""
        return tuple(path for path in (self.depth, self.filled, self.drained, self.regions) if path is not None)


class SinksRecipe(Strict):
    """One DEM to its sinks."""

    source: Annotated[list[str], Field(min_length=1)]
    """A file, many tiles, a folder, a glob or a URL; or a store with a layer ``dem``, such as ``dem.zarr``."""
    out: Place
    """``X.zarr``: layers, and regions in ``X.parquet``; ``X.tif``: sink depth, and regions; ``X.parquet``: regions."""
    filled: bool = False
    """Whether a GeoTIFF of the sink depth gets one of the filled DEM beside it, ``X_filled.tif``."""
    drained: bool = False
    """Whether there is a filled DEM whose flats drain: layer ``drained`` of the store, or ``X_drained.tif``."""
    nodata: float | None = None
    overlap: Literal["first", "mean"] | None = None
    chunks: Annotated[int, Field(ge=16)] | None = None
    """Side of a chunk in pixels; by default the store's, and 2048 of files."""
    engine: Literal["tiled", "whitebox"] = "tiled"
    voids: Literal["wall", "outlet"] = "wall"
    """What an enclosed void is to the water."""
    min_depth_m: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    min_area_m2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    levels: Annotated[int, Field(ge=1)] = 1
    """How many levels of sinks within sinks the regions have."""
    cluster: ClusterRecipe = ClusterRecipe()

    @property
    def outputs(self) -> Outputs:
        """The files of the run."""
        out, ending = self.out, self.out.suffix.lower()
        is_tif = ending in (".tif", ".tiff")
        return Outputs(
            store=out if ending == ".zarr" else out.with_name(f"{out.stem}.partial.zarr"),
            is_kept=ending == ".zarr",
            depth=out if is_tif else None,
            filled=out.with_name(f"{out.stem}_filled{out.suffix}") if is_tif and self.filled else None,
            drained=out.with_name(f"{out.stem}_drained{out.suffix}") if is_tif and self.drained else None,
            regions=out.with_suffix(".parquet"),
            manifest=out.with_name(f"{out.stem}.sinks.json"),
            dask_report=out.with_name(f"{out.stem}.dask-report.html"),
            work=out.with_name(f"{out.stem}.sinks.partial"),
        )

    @property
    def asked(self) -> dict[str, Any]:
        """All that the answer depends on, and the chunks, which a store keeps; not where it is computed or written."""
        return self.model_dump(mode="json", exclude={"out", "filled", "cluster"})


def read_sinks_recipe(**options: Any) -> SinksRecipe:
    """Build a recipe from options; those that are None are left out.

    Parameters
    ----------
    options
        Fields of `SinksRecipe`; nested ones as ``cluster__workers``.

    Raises
    ------
    InputError
        When a value is not allowed.
    """
    try:
        recipe = SinksRecipe.model_validate(nest(options))
    except ValidationError as error:
        raise in_our_words(error, "sinks", _OPTIONS) from None
    _refuse_contradictions(recipe)
    return recipe


def stored_dem(recipe: SinksRecipe) -> str | None:
    """Name the store that the elevations come from; None where they come from files."""
    first = recipe.source[0]
    return first if len(recipe.source) == 1 and first.rstrip("/").endswith(".zarr") else None


def _refuse_contradictions(recipe: SinksRecipe) -> None:
    ending = recipe.out.suffix.lower()
    if ending not in _ENDINGS or not recipe.out.stem:
        raise InputError(f"OUT must end in {', '.join(_ENDINGS)}", str(recipe.out), "its ending says what is written")
    if ending == ".parquet" and (recipe.filled or recipe.drained):
        option = "--filled" if recipe.filled else "--drained"
        mend = "give an OUT that ends in .tif or .zarr"
        raise InputError("regions alone have no filled DEM beside them", f"{option} {recipe.out}", mend)
    store = stored_dem(recipe)
    if store is not None and (recipe.nodata is not None or recipe.overlap is not None):
        mend = "leave --nodata and --overlap out, or give the files"
        raise InputError(f"the layer {DEM!r} of a store has its voids and its tiles behind it", store, mend)
