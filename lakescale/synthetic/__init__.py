"""Synthetic scenes of any size with truth by construction: ice, lakes that fill basins, weather, several dates."""

from lakescale.synthetic.region import CLASSES, Region, make_region
from lakescale.synthetic.scenery import Scenery

__all__ = ["CLASSES", "Region", "Scenery", "make_region"]
