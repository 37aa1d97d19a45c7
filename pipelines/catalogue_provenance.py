"""Where a catalogue comes from: images by date, other inputs, versions; and whom to credit for them."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakescale import __version__
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakescale.series import TrackRules

_PGC_DEMS = re.compile(r"arcticdem|earthdem|rema(?![a-z])", re.IGNORECASE)
# https://www.pgc.umn.edu/guides/user-services/acknowledgement-policy/
_PGC = (
    "DEMs provided by the Polar Geospatial Center under NSF-OPP awards 1043681, 1559691, 1542736, 1810976, and 2129685."
)
_USGS = "Landsat data courtesy of the U.S. Geological Survey."


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is known of the pictures of one date; empty or None where it is not."""

    scene_ids: tuple[str, ...] = ()
    sensor: str = ""
    product_level: str = ""
    baseline: str = ""
    """Processing baseline."""
    cloud: str = ""
    """The rule by which cloud was found; empty where it was not assessed."""
    seen_m2: float | None = None
    """True area of the region that was seen."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a catalogue was made from."""

    recipe_hash: str
    images: Mapping[Any, Images] = field(default_factory=dict)
    """By date, dates without lakes too."""
    inputs: tuple[str, ...] = ()
    """Other inputs: DEM, ice, model weights with their hashes, one line each."""
    region_m2: float | None = None
    """True area of the region that was mapped."""
    credits: tuple[str, ...] = ()
    """Beside those to Copernicus, USGS and PGC, which follow from sensors and inputs."""
    creator: str = ""
    license: str = "other"
    """SPDX identifier, or ``other``."""

    def __post_init__(self) -> None:
        """Refuse areas that are none."""
        for name, area in (("region_m2", self.region_m2), *((f"seen_m2 of {t}", i.seen_m2) for t, i in self.dated)):
            if area is not None and not 0 <= area < np.inf:
                raise InputError(f"an area that is none: {area!r}", f"provenance, {name}", "give m2, or None")

    @property
    def dated(self) -> list[tuple[pd.Timestamp, Images]]:
        """Images in the order of time.

        Raises
        ------
        InputError
            Dates that cannot be read, or the same date twice.
        """
        problem = ""
        try:
            times = [pd.Timestamp(date).as_unit("ms") for date in self.images]
        except (TypeError, ValueError) as error:
            problem = f"a date that cannot be read: {error}"
        else:
            if len(set(times)) < len(times):
                problem = "the same date twice"
            elif any(pd.isna(time) or time.tzinfo is not None for time in times):
                problem = "a date that is missing, or has a zone"
        if problem:
            raise InputError(problem, "provenance, images", "give times in UTC without a zone, such as 2019-07-28")
        return sorted(zip(times, self.images.values(), strict=True), key=lambda pair: pair[0])

    def credit_lines(self) -> list[str]:
        """Name whom to credit."""
        by_maker: dict[str, set[int]] = {}
        for time, images in self.dated:
            by_maker.setdefault(images.sensor.split("-")[0].split(" ")[0].lower(), set()).add(time.year)
        lines = []
        if years := by_maker.get("sentinel"):
            span = f"{min(years)}-{max(years)}" if len(years) > 1 else f"{min(years)}"
            lines.append(f"Contains modified Copernicus Sentinel data [{span}].")
        if "landsat" in by_maker:
            lines.append(_USGS)
        if any(_PGC_DEMS.search(line) for line in self.inputs):
            lines.append(_PGC)
        return [*lines, *(line for line in self.credits if line not in lines)]


def describe(
    provenance: Provenance, title: str, position_error_m: float, rules: TrackRules, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Sum up what goes into the metadata of every file, as plain JSON."""
    return {
        "catalogue_id": str(uuid.uuid4()),
        "title": title,
        "created": dt.datetime.now(dt.UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"),
        "software": {"lakescale": __version__},
        "recipe_hash": provenance.recipe_hash,
        "images": {time.isoformat(): asdict(images) for time, images in provenance.dated},
        "inputs": list(provenance.inputs),
        "credits": provenance.credit_lines(),
        "creator": provenance.creator,
        "license": provenance.license,
        "position_error_m": position_error_m,
        "rules": asdict(rules),
        "notes": list(notes),
    }
