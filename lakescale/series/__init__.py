"""Lakes of many dates to tracks: ids that persist, states, events with brackets, fates."""

from lakescale.series.rules import TrackRules
from lakescale.series.tracking import Tracks, find_basins, track

__all__ = ["TrackRules", "Tracks", "find_basins", "track"]
