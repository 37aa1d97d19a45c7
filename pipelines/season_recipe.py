"""The recipe of a season: one date's recipe with many scenes, and the rules that make one catalogue of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, model_validator

from lakescale.rules import PRESETS
from lakescale.scene.names import parse_day
from lakescale.schema import InputError
from lakescale.series import TrackRules
from lakescale.storage import local_path
from pipelines.recipe import OPTIONS, CloudRule, MapRecipe, SceneRecipe, in_our_words
from pipelines.season_sections import DepthRecipe, IceSheetRecipe, StacRecipe, VolumeRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRESET = "preset"
_MEND = "see docs/season.md for what a recipe of a season may hold"


def _as_scenes(value: Any) -> Any:
    """Take scenes given by their sources alone."""
    if isinstance(value, str | Path):
        return {"source": [str(value)]}
    return {"source": value} if isinstance(value, list) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


def _as_none(value: Any) -> Any:
    return None if value == "none" else value


def _with_text_keys(value: Any) -> Any:
    """Take days as YAML reads them."""
    return {str(name): one for name, one in value.items()} if isinstance(value, dict) else value


def _on_this_machine(value: Any) -> Any:
    return local_path(value, "the folder of a season") if isinstance(value, str | Path) else value


def _as_text(value: Any) -> Any:
    """Take dates as YAML reads them."""
    return {name: str(day) for name, day in value.items()} if isinstance(value, dict) else value


class SeasonScenes(SceneRecipe):
    """Scenes of many dates, listed or searched for."""

    source: Annotated[list[str], BeforeValidator(_as_list)] = Field(default=[])
    stac: StacRecipe | None = None

    @model_validator(mode="after")
    def _are_named(self) -> SeasonScenes:
        if not self.source and self.stac is None:
            raise ValueError("no scenes are named: give a source, or a search as stac")
        return self

    def of_files(self, files: Sequence[str], date: str | None = None) -> SceneRecipe:
        """Ask for some of the files alone, as one date."""
        values = {name: getattr(self, name) for name in SceneRecipe.model_fields}
        return SceneRecipe.model_construct(**values | {"source": list(files), "date": date or self.date})


class SeasonRecipe(MapRecipe):
    """Scenes of many dates to lakes, on one grid, and these to one catalogue.

    All that a recipe of one scene has (`MapRecipe`) holds for each date.
    """

    scene: Annotated[SeasonScenes, BeforeValidator(_as_scenes)] = Field(
        validation_alias=AliasChoices("scenes", "scene"), serialization_alias="scenes"
    )
    """Files, folders, globs, URLs or STAC items of all dates, as ``scenes:``; bands, scale, offset and nodata are those
    of all of them. Several scenes of one date are mosaicked: of a pixel the first that saw it counts."""
    out: Annotated[Path, BeforeValidator(_on_this_machine)]
    """Folder of the season, on this machine: dates take chunks over from each other by links."""
    dates: Annotated[dict[str, str], BeforeValidator(_as_text)] = Field(default={})
    """Dates by file name, of scenes whose names tell none or a wrong one; ``2019-06-03/2019-06-05`` of a mosaic of
    several days."""
    clouds: Annotated[dict[str, CloudRule], BeforeValidator(_with_text_keys)] = Field(default={})
    """Rules that tell cloud, by date or by file name, where ``cloud`` is not to hold."""
    cloud_margin_m: Annotated[float, Field(ge=0)] = 300.0
    """As of one date; more than 0 by default, since water under a thin edge of cloud would look drained."""
    mosaic: Literal["first", "least cloud"] = "first"
    """Of several scenes of a date the first that saw a pixel counts: in the order of their names, or the one with the
    least cloud first."""
    title: str = ""
    """Of the catalogue; by default the folder's name and the dates."""
    creator: str = ""
    license: str = "other"
    """Of the catalogue: SPDX identifier, or ``other``."""
    credits: tuple[str, ...] = ()
    """Beside those that follow from sensors and DEM."""
    position_error_m: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the position of outlines, by which areas get theirs; by default a pixel of the grid."""
    track: dict[str, Any] = Field(default={})
    """Changes to the rules of tracking, by the names of `lakescale.TrackRules`; ``preset``: ``greenland`` (the default)
    or ``antarctica``."""
    volume: VolumeRecipe = VolumeRecipe()
    depth: Annotated[DepthRecipe | None, BeforeValidator(_as_none)] = DepthRecipe()
    """Depths from reflectance, where it is at hand; None for none."""
    lids: bool = True
    """Whether ice and snow on lakes are told by how the ground looks, see `lakescale.assess_lids`."""
    ice_sheet: IceSheetRecipe = IceSheetRecipe()
    dates_at_once: Annotated[int, Field(ge=1)] = 1
    """How many dates are mapped side by side: more than one where a date has fewer chunks than there are workers."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a scene is tried again after a fault that may pass: a worker that died, a server that did not
    answer."""

    @model_validator(mode="after")
    def _is_of_many_dates(self) -> SeasonRecipe:
        if self.scene.date is not None:
            raise ValueError("a season has many dates: name them by file, under dates")
        if not self.write_evidence:
            raise ValueError("a season keeps its evidence, since it goes on from there: leave write_evidence out")
        return self

    @property
    def track_rules(self) -> TrackRules:
        """The preset with its changes.

        Unless they are named, the least area is that of the polygon rules, and lids are not trusted to be complete:
        grey ice without a gap looks like a drained floor.
        """
        changes = {name: tuple(value) if isinstance(value, list) else value for name, value in self.track.items()}
        preset = str(changes.pop(_PRESET, "greenland"))
        if unknown := set(changes) - set(TrackRules.__dataclass_fields__):
            known = ", ".join([_PRESET, *TrackRules.__dataclass_fields__])
            raise InputError(f"no rule of tracking {min(unknown)!r}", "recipe: track", f"the rules are {known}")
        own = {"min_area_m2": self.polygon_rules.min_area_m2, "trust_lids": False}
        return TrackRules.preset(preset, **{**own, **changes})

    def date_of(self, name: str) -> tuple[str, str] | None:
        """Tell the first and last day that the recipe gives a file; None where it gives none."""
        told = self.dates.get(name)
        if told is None:
            return None
        first, _, last = told.partition("/")
        days = parse_day(first), parse_day(last or first)
        if days[1] < days[0]:
            raise InputError("a date ends before it begins", f"recipe: dates, {name}", "give first/last")
        return days[0].isoformat(), days[1].isoformat()

    def cloud_of(self, day: str, files: Sequence[str]) -> str:
        """Tell by which rule cloud is found in a scene: by its file's name, its date, or that of all."""
        named = [self.clouds[key] for key in (*(Path(file).name for file in files), day) if key in self.clouds]
        return named[0] if named else self.cloud

    def of_date(self, day: str, sources: Sequence[str], out: Path) -> MapRecipe:
        """Make the recipe of one date."""
        values = {name: getattr(self, name) for name in MapRecipe.model_fields}
        values["cloud"] = self.cloud_of(day, sources)
        scene = self.scene.of_files(sources)
        return MapRecipe.model_construct(**values | {"scene": scene, "out": out})

    def to_yaml(self) -> str:
        """Write the recipe as YAML that `read_season_recipe` takes back."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def read_season_recipe(path: Path, **options: Any) -> SeasonRecipe:
    """Read the recipe of a season.

    Parameters
    ----------
    path
        YAML, with the names of `SeasonRecipe`; ``scenes`` and ``out`` are needed.
    options
        Values that go before the file's, where they are not None; nested ones as ``cluster__workers``.

    Raises
    ------
    InputError
        When the file cannot be read, or a value is not allowed: with its line.
    """
    text, values = _read_yaml(path)
    for name, value in options.items():
        section, _, field = name.partition("__")
        if value is not None and field:
            values[section] = {**(values.get(section) or {}), field: value}
        elif value is not None:
            values[section] = value
    try:
        recipe = SeasonRecipe.model_validate(values)
    except ValidationError as error:
        line = find_line(text, error.errors()[0]["loc"])
        raise in_our_words(error, f"{path}, line {line}" if line else str(path), OPTIONS, _MEND) from None
    if recipe.preset not in PRESETS:
        raise InputError(f"no preset {recipe.preset!r}", f"{path}: preset", f"choose one of {', '.join(PRESETS)}")
    _ = recipe.polygon_rules, recipe.track_rules, [recipe.date_of(name) for name in recipe.dates]  # told before it runs
    return recipe


def find_line(text: str, loc: Sequence[str | int]) -> int:
    r"""Find the line (from 1) of the entry of a YAML text that pydantic names; that around it where it is not there.

    >>> find_line("out: RUN\ndem:\n  margin: 3\n", ("dem", "margin"))
    3
    """
    node, line = yaml.compose(text), 0
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pairs = {str(key.value): (key, value) for key, value in node.value}
            if str(part) not in pairs:
                return line
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text()
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe cannot be read: {error}", str(path), "give a YAML file") from None
    if not isinstance(values, dict):
        what = "the recipe is no mapping of names to values"
        raise InputError(what, str(path), "it needs at least scenes: and out:")
    return text, values
