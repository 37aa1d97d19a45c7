"""What a run of one date found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakescale.schema import AREA_M2, REASON
from lakescale.shown import Sheet, Shown

if TYPE_CHECKING:
    import geopandas as gpd

    from lakescale.storage import Location


@dataclass(repr=False)
class MapResult(Shown):
    """What a run found, and where it lies."""

    out: Location
    lakes: gpd.GeoDataFrame
    candidates: gpd.GeoDataFrame
    """Every candidate, lakes included, with its ``reason``."""
    notes: list[str]
    """What was missing or left out, once each."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each stage took, as in the manifest."""
    of_models: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    """Every candidate of each model by itself, judged alike; the lakes come from the first one's or from none, or are
    fused from all (then the candidates of the water index are among them)."""

    def sheet(self) -> Sheet:
        """Give how many candidates are lakes, and why others are none."""
        area_km2 = self.lakes[AREA_M2].sum() / 1e6
        reasons = self.candidates[REASON].value_counts().sort_index()
        rows = [(str(name), str(count)) for name, count in reasons.items()]
        return Sheet(f"{self.out}: {len(self.lakes)} lakes, {area_km2:.3f} km2 of true area", ("", ""), rows)
