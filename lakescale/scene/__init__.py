"""Scenes: GeoTIFF, COG, VRT, folders of bands and STAC items as lazy arrays with named bands.

- `opening`: `open_scene`, from a source to the array.
- `names`, `stac`: what is known of a file before it is opened, from its name or a STAC item.
- `files`: headers, and the reader of pixels. It is our own, a window per chunk and all its bands in one task, so
  that a damaged file is named by the error.
- `bands`: which band each plane of a file is.
- `radiometry`: what the numbers mean.
- `seen`: which pixels hold data.
- `on_grid`: a scene on another grid.
- `mixed`: images whose bands lie on several grids.
"""

from lakescale.scene.mixed import SceneParts, open_parts
from lakescale.scene.on_grid import bring_to_grid
from lakescale.scene.opening import open_scene
from lakescale.scene.seen import seen_mask

__all__ = ["SceneParts", "bring_to_grid", "open_parts", "open_scene", "seen_mask"]
