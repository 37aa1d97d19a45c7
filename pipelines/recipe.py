"""The recipe of a run: typed, from the command line or YAML; the only reader of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lakescale.rules import PRESETS, PolygonRules
from lakescale.schema import InputError


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SceneRecipe(_Strict):
    """What to open, and what the files do not say themselves."""

    source: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    """Files, a folder, a glob or a URL."""
    bands: list[str] | None = None
    date: Annotated[str | None, BeforeValidator(lambda day: day if day is None else str(day))] = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | Literal["cup"] | None = None
    chunks: Annotated[int, Field(ge=16)] = 2048


class ClusterRecipe(_Strict):
    """Where to compute."""

    kind: str = "local"
    """``local`` (processes), ``threads``, or a scheduler's address."""
    workers: Annotated[int, Field(ge=1)] | None = None
    memory_limit: str | None = None
    dashboard: str | None = None


class MapRecipe(_Strict):
    """One scene to lakes."""

    scene: SceneRecipe
    out: Path
    ice: str | None = None
    aoi: str | None = None
    exclude: str | None = None
    evidence: Literal["auto", "color", "index"] = "auto"
    """``auto``: color thresholds for 8-bit RGB, the water index for reflectance."""
    index_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.25
    preset: str = "lakescale"
    rules: dict[str, Any] = {}
    """Changes to the preset's polygon rules, by the names of `lakescale.PolygonRules`."""
    cluster: ClusterRecipe = ClusterRecipe()

    @property
    def polygon_rules(self) -> PolygonRules:
        """The preset with its changes."""
        unknown = set(self.rules) - set(PolygonRules.__dataclass_fields__)
        if unknown:
            known = ", ".join(PolygonRules.__dataclass_fields__)
            raise InputError(f"no polygon rule {min(unknown)!r}", "recipe: rules", f"the rules are {known}")
        return PolygonRules.preset(self.preset, **self.rules)

    @property
    def answer(self) -> dict[str, Any]:
        """All that the lakes depend on: not where they are computed or written."""
        return self.model_dump(mode="json", exclude={"out": True, "cluster": True, "scene": {"chunks"}})

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
        Fields of `MapRecipe`; nested ones as ``scene__date``, ``cluster__workers``, ``rules__neck_px``.

    Raises
    ------
    InputError
        When the file cannot be read, or a value is not allowed.
    """
    values = _read_yaml(path) if path else {}
    for name, value in options.items():
        if value is None:
            continue
        *sections, field = name.split("__")
        target = values
        for section in sections:
            target[section] = target.get(section) or {}
            target = target[section]
            if not isinstance(target, dict):
                raise InputError(
                    f"{section} must be a mapping of names to values, got {target!r}", f"recipe: {section}"
                )
        target[field] = value
    try:
        recipe = MapRecipe.model_validate(values)
    except ValidationError as error:
        raise _in_our_words(error, path) from None
    if recipe.preset not in PRESETS:
        raise InputError(f"no preset {recipe.preset!r}", "recipe: preset", f"choose one of {', '.join(PRESETS)}")
    _ = recipe.polygon_rules  # wrong rules are told before anything runs
    return recipe


def _in_our_words(error: ValidationError, path: Path | None) -> InputError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    option = f"--{str(first['loc'][-1]).replace('_', '-')}" if first["loc"][-1] != "source" else "--scene"
    item = f"{path or 'recipe'}: {where}"
    if first["type"] == "missing":
        name = where.removesuffix(".source")
        return InputError(f"no {name} is given", item, f"give one: {option if '.' in where else '--' + where}")
    if first["type"] == "extra_forbidden":
        return InputError("there is no such entry in a recipe", item, "see the recipe.yaml of any run for their names")
    return InputError(f"{first['msg'][:1].lower()}{first['msg'][1:]} (got {first['input']!r})", item, f"see {option}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe cannot be read: {error}", str(path), "give a YAML file") from None
    if not isinstance(values, dict):
        raise InputError("the recipe is no mapping of names to values", str(path), "see recipe.yaml of any run")
    return values
