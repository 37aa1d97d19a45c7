"""The recipe of a run: typed, from the command line or YAML; the only reader of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lakescale.models.shipped import SHIPPED
from lakescale.rules import PRESETS, PolygonRules
from lakescale.schema import InputError
from pipelines.strict import Place, Strict

CloudRule = Literal["auto", "s2cloudless", "moussavi", "williamson", "scl", "none"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


def _as_none(value: Any) -> Any:
    return None if value == "none" else value


def _as_source(value: Any) -> Any:
    return {"source": str(value)} if isinstance(value, str | Path) else value


LAKESCALE = "lakescale"
"""The preset of fusion that knows of sinks within sinks, and asks models about the water index."""
_ELSEWHERE = ("out", "cluster", "write_evidence", "report", "cup_regions", "image")
"""What lakes do not depend on."""


class SceneRecipe(Strict):
    """What to open, and what the files do not say themselves."""

    source: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    """Files, a folder, a glob or a URL."""
    bands: list[str] | None = None
    date: Annotated[str | None, BeforeValidator(lambda day: day if day is None else str(day))] = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | Literal["cup"] | None = None
    chunks: Annotated[int, Field(ge=16)] = 2048


class GridRecipe(Strict):
    """The grid of the run, where it is not the scene's."""

    like: str | None = None
    """A raster on that grid; it goes before the others."""
    crs: str | None = None
    """Such as EPSG:3413; the scene's by default."""
    resolution_m: Annotated[float, Field(gt=0)] | None = None
    """Side of a pixel; by default about the scene's."""


class DemRecipe(Strict):
    """Elevations, for the sinks."""

    source: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    """A file, many tiles, a folder, a glob or a URL."""
    overlap: Literal["first", "mean"] = "first"
    nodata: float | None = None
    engine: Literal["tiled", "whitebox"] = "tiled"
    voids: Literal["wall", "outlet"] = "wall"
    """What an enclosed void is to the water."""
    min_depth_m: Annotated[float, Field(ge=0)] = 0.5
    """Depth from which a depression counts as a sink: below lies the noise of a photogrammetric DEM."""
    margin_m: Annotated[float, Field(ge=0)] = 5000.0
    """How far beyond the run's grid elevations are looked at, so that its edge cuts no sink open."""


class IceRecipe(Strict):
    """Where there is ice."""

    source: str
    """Polygons in any CRS, or a raster of percent such as NCSCDv2's."""
    min_percent: Annotated[float, Field(ge=0, le=100)] = 50.0
    """Of a raster: more than this is ice."""
    largest: bool = False
    """Whether only the largest piece counts, of each polygon of the area of interest where one is given."""


class ModelRecipe(Strict):
    """A model to run over the scene. What is not given comes from its checkpoint."""

    name: str | None = None
    """Names its layer and its candidates; by default ``sam``, ``deeplab`` (DeepLabV3Plus), or the file's stem."""
    source: str
    """A checkpoint of lakescale, as the workers see it, or its URL; ``shipped`` is the one that comes with it."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Lake is where the probability is at least this."""
    window: Annotated[int, Field(ge=1)] | None = None
    """Side of the windows, pixels."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Pixels from one window to the next; by default half the window."""
    weights: Literal["hann", "flat"] = "hann"
    batch: Annotated[int, Field(ge=1)] = 8
    gate: bool = False
    """Whether windows without any evidence of color, index or sinks are left out; what they alone cover is no lake."""
    augment: bool = False
    device: str = "auto"
    """``auto`` (CUDA where a worker has it), ``cpu``, ``cuda``, ``cuda:1``, ..."""
    precision: Literal["float32", "bf16", "fp16"] | None = None
    hash: str | None = None
    """Of the checkpoint; a run notes it down, and another checkpoint under the same path is then refused."""


def _as_model(value: Any) -> Any:
    """Take a model given by its path, or as ``NAME=PATH``."""
    if not isinstance(value, str | Path):
        return value
    name, equals, path = str(value).partition("=")
    return {"name": name, "source": path} if equals and name.isidentifier() else {"source": str(value)}


def _as_models(value: Any) -> Any:
    listed = value if isinstance(value, list | tuple) else [value]
    return [_as_model(one) for one in listed if one not in (None, "none")]


class ClusterRecipe(Strict):
    """Where to compute."""

    kind: str = "local"
    """``local`` (processes), ``threads``, or a scheduler's address."""
    workers: Annotated[int, Field(ge=1)] | None = None
    memory_limit: str | None = None
    dashboard: str | None = None
    performance_report: bool = False
    """Whether Dask's report of all tasks is written, ``dask-report.html``."""

    @property
    def options(self) -> dict[str, Any]:
        """Those of `lakescale.cluster.open_cluster`."""
        return self.model_dump(exclude={"performance_report"}, exclude_none=True)


class MapRecipe(Strict):
    """One scene to lakes."""

    scene: Annotated[SceneRecipe, BeforeValidator(_as_source)]
    out: Place
    """Folder of the run: a path, or a URL of an object store."""
    grid: GridRecipe = GridRecipe()
    dem: Annotated[DemRecipe | None, BeforeValidator(_as_source)] = None
    ice: Annotated[IceRecipe | None, BeforeValidator(_as_source)] = None
    aoi: str | None = None
    exclude: str | None = None
    cloud: CloudRule = "auto"
    """The rule that tells cloud; ``auto`` takes the best that the bands allow, ``s2cloudless`` is an extra for L1C."""
    cloud_margin_m: Annotated[float, Field(ge=0)] = 0.0
    """What lies within this distance of cloud counts as not seen, too: its thin edges, over dark water above all."""
    models: Annotated[tuple[ModelRecipe, ...], BeforeValidator(_as_models)] = ()
    """In order of precedence. Where the recipe names none, the one that comes with lakescale, if lakes are fused or
    made of a model; ``none`` for none."""
    evidence: Literal["auto", "color", "index", "model"] = "auto"
    """What is looked at beside models. ``auto``: color thresholds and the water index, as far as the scene allows;
    ``model``: neither. Without fusion it is what the lakes are made of: color or, for reflectance, the index; the first
    model."""
    index_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.25
    fuse: Annotated[Literal["seed", "lakescale"] | None, BeforeValidator(_as_none)] = None
    """How the candidates of models, then those of the water index, are fused with sinks, color and ice to lakes, see
    `lakescale.fuse`; None takes the lakes from what ``evidence`` says, by themselves. Where the recipe does not say it,
    ``lakescale``, unless ``evidence`` names one kind."""
    preset: str = "lakescale"
    rules: dict[str, Any] = Field(default={})
    """Changes to the preset's polygon rules, by the names of `lakescale.PolygonRules`."""
    min_sink_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a lake that must lie in sinks of the DEM; 0 asks for none, since a DEM may hold lake surfaces."""
    cup_regions: str | None = None
    """Polygons with ``region_num``, for the lakes as the Cup wants them, ``lake_polygons_test.gpkg``."""
    image: str | None = None
    """Name of the image in that file; by default the scene's file."""
    write_evidence: bool = True
    """Whether the layers of evidence are written, to ``evidence.zarr``."""
    report: bool = True
    """Whether the page that shows it all is written at the end, ``report.html``."""
    cluster: ClusterRecipe = ClusterRecipe()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Settle what the entries left out mean, so that a recipe that was written down means the same for ever."""
        if not isinstance(values, dict):
            return values
        evidence = values.get("evidence", "auto")
        fuse = values.get("fuse", LAKESCALE if evidence == "auto" else None)
        needs_model = fuse not in (None, "none") or evidence == "model"
        return {"models": [SHIPPED] if needs_model else []} | values | {"fuse": fuse}

    @model_validator(mode="after")
    def _has_what_it_asks_for(self) -> MapRecipe:
        if self.min_sink_share and self.dem is None:
            raise ValueError("min_sink_share needs a dem")
        if self.evidence == "model" and not self.models:
            raise ValueError("evidence of a model needs a model")
        if self.image is not None and self.cup_regions is None:
            raise ValueError("image names the scene in the Cup's answer: it needs cup_regions")
        return self

    @property
    def polygon_rules(self) -> PolygonRules:
        """The preset with its changes."""
        unknown = set(self.rules) - set(PolygonRules.__dataclass_fields__)
        if unknown:
            known = ", ".join(PolygonRules.__dataclass_fields__)
            raise InputError(f"no polygon rule {min(unknown)!r}", "recipe: rules", f"the rules are {known}")
        return PolygonRules.preset(self.preset, **self.rules)

    @property
    def nests_sinks(self) -> bool:
        """Whether lakes are fused by sinks that lie one within the other."""
        return self.fuse == LAKESCALE

    @property
    def answer(self) -> dict[str, Any]:
        """All that the lakes depend on: not where they are computed or written."""
        elsewhere: dict[str, Any] = dict.fromkeys(_ELSEWHERE, True)
        elsewhere["scene"] = {"chunks"}
        return self.model_dump(mode="json", exclude=elsewhere)

    def to_yaml(self) -> str:
        """Write the recipe as YAML that `read_recipe` takes back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(path: Path | None, **options: Any) -> MapRecipe:
    """Build a recipe from a YAML file and options; options that are not None win.

    Parameters
    ----------
    path
        A recipe, such as the ``recipe.yaml`` of an earlier run; None for options alone.
    options
        Fields of `MapRecipe`; nested ones as ``scene__date``, ``cluster__workers``, ``rules__neck_px``; those of every
        model as ``models__threshold``.

    Raises
    ------
    InputError
        When the file cannot be read, or a value is not allowed.
    """
    values = read_yaml(path) if path else {}
    of_models = {}
    for name, value in options.items():
        if value is None:
            continue
        if name.startswith(_EACH_MODEL):
            of_models[name.removeprefix(_EACH_MODEL)] = value
        else:
            _put(values, name, value)
    _put_in_models(values, of_models)
    try:
        recipe = MapRecipe.model_validate(values)
    except ValidationError as error:
        raise in_our_words(error, str(path or "recipe"), OPTIONS) from None
    if recipe.preset not in PRESETS:
        raise InputError(f"no preset {recipe.preset!r}", "recipe: preset", f"choose one of {', '.join(PRESETS)}")
    _ = recipe.polygon_rules  # wrong rules are told before anything runs
    return recipe


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set an option in its section."""
    *sections, field = name.split("__")
    target = values
    for section in sections:
        inside = target.get(section) or {}
        target[section] = _as_source(inside) if section in _SOURCES else inside
        target = target[section]
        if not isinstance(target, dict):
            what = f"{section} must be a mapping of names to values, got {target!r}"
            raise InputError(what, f"recipe: {section}")
    target[field] = value


def _put_in_models(values: dict[str, Any], options: dict[str, Any]) -> None:
    """Set options in every model; where none is named, in the one that comes with lakescale."""
    models = _as_models(values.get("models", SHIPPED))
    if options and not models:
        named = ", ".join(OPTIONS.get(f"models.{name}", name) for name in options)
        raise InputError(f"{named} is for models, and none is given", "recipe: models", "give one: --model PATH")
    if options:
        values["models"] = [one | options if isinstance(one, dict) else one for one in models]


_EACH_MODEL = "models__"

OPTIONS = {
    "scene.source": "--scene",
    "dem.source": "--dem",
    "dem.engine": "--sinks-engine",
    "dem.nodata": "--dem-nodata",
    "dem.min_depth_m": "--min-sink-depth-m",
    "ice.source": "--ice",
    "ice.min_percent": "--ice-percent",
    "ice.largest": "--largest-ice",
    "grid.resolution_m": "--resolution",
    "models": "--model",
    "models.source": "--model",
    "models.name": "--model",
    **{f"models.{name}": f"--model-{name}" for name in ("threshold", "stride", "gate", "device", "precision")},
}
"""Where an option of the command is not named as its entry in a recipe."""


_SOURCES = ("scene", "dem", "ice")
"""Sections that may be given by their source alone."""


def nest(options: dict[str, Any]) -> dict[str, Any]:
    """Sort options into sections, ``scene__date`` into ``scene``; those that are None are left out."""
    values: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            section, _, field = name.partition("__")
            (values.setdefault(section, {}) if field else values)[field or section] = value
    return values


def in_our_words(error: ValidationError, recipe: str, options: dict[str, str], mend: str = "") -> InputError:
    """Say of the first value that is not allowed what is wrong, in which entry, and which option gives it.

    Parameters
    ----------
    error
        What pydantic found.
    recipe
        Where the values are from.
    options
        Options of the command by entry, where they are not named alike.
    mend
        What mends it, where no option does.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # said by whoever knows
        return InputError(cause.what, f"{recipe}: {cause.item}", cause.mend)
    names = [part for part in first["loc"] if isinstance(part, str)]
    where = ".".join(names)
    option = options.get(where, f"--{names[-1].replace('_', '-')}" if names else "")
    item = f"{recipe}: {where}".removesuffix(": ")
    if first["type"] == "missing":
        option = options.get(f"{where}.source", option)
        return InputError(f"no {where.removesuffix('.source')} is given", item, mend or f"give one: {option}")
    if first["type"] == "extra_forbidden":
        names_of = mend or "see the recipe.yaml of any run for their names"
        return InputError("there is no such entry in a recipe", item, names_of)
    message = first["msg"].removeprefix("Value error, ")
    got = f" (got {first['input']!r})" if names else ""
    see = mend or (f"see {option}" if option else "see --help")
    return InputError(f"{message[:1].lower()}{message[1:]}{got}", item, see)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe's file, a mapping by safe load.

    Raises
    ------
    InputError
        When it cannot be read, or holds no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe cannot be read: {error}", str(path), "give a YAML file") from None
    if not isinstance(values, dict):
        raise InputError("the recipe is no mapping of names to values", str(path), "see recipe.yaml of any run")
    return values
