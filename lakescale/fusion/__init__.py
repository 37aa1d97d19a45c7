"""From candidates to lakes.

- `admission`: candidates of one source are admitted, or not; shares of their area.
- `fusing`: `fuse`, which joins the others up: `inputs` (what frames must have), `reading` (geometries mended), `pairs`
  (what meets what, and how much they share), `judging` (one table of all), `results` (lakes and reasons).
- `preset`: the preset `lakescale`: `outlines` (lids, necks), `measuring` (rasters), `weight` (the score), `rivals`,
  `basins` (one lake a sink); `seed`: the preset of the seed; `parts`: what travels between them; `reasons`: the words.
"""

from lakescale.fusion.admission import admit, covered_share, overlaps, require_sinks, seen_share, sink_share
from lakescale.fusion.fusing import PRESETS, fuse
from lakescale.fusion.preset import Lakescale
from lakescale.fusion.reasons import EXCLUDED, NO_SINK, NOT_ON_ICE, REASONS
from lakescale.fusion.seed import Seed

__all__ = [
    "EXCLUDED",
    "NOT_ON_ICE",
    "NO_SINK",
    "PRESETS",
    "REASONS",
    "Lakescale",
    "Seed",
    "admit",
    "covered_share",
    "fuse",
    "overlaps",
    "require_sinks",
    "seen_share",
    "sink_share",
]
