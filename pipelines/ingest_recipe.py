"""The recipe of an ingest: which scenes go to which cube, on which grid, and what else is written."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from pipelines.recipe import OPTIONS, ClusterRecipe, DemRecipe, GridRecipe, SceneRecipe, in_our_words, nest
from pipelines.strict import Place, Strict


class IngestRecipe(Strict):
    """Scenes of one or many dates to one cube."""

    scene: SceneRecipe
    """Files of any number of dates; ``date`` chooses one. ``chunks`` are those of a new cube."""
    out: Place
    """The cube, such as ``cube.zarr`` or ``s3://bucket/cube.zarr``."""
    grid: GridRecipe = GridRecipe()
    """Of a new cube; by default the first scene's."""
    dem: DemRecipe | None = None
    """Elevations to bring to the cube's grid, as ``dem.zarr`` beside it."""
    cog: bool = False
    """Whether each date is also written as ``OUT_2019-07-23.tif`` beside the cube."""
    cluster: ClusterRecipe = ClusterRecipe()


def read_ingest_recipe(**options: Any) -> IngestRecipe:
    """Build a recipe from options; those that are None are left out.

    Parameters
    ----------
    options
        Fields of `IngestRecipe`; nested ones as ``scene__source``, ``grid__crs``, ``cluster__workers``.

    Raises
    ------
    InputError
        When a value is not allowed.
    """
    try:
        return IngestRecipe.model_validate(nest(options))
    except ValidationError as error:
        raise in_our_words(error, "ingest", OPTIONS) from None
