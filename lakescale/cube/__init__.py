"""The cube: scenes of many dates on one grid, as a Zarr store that can be resumed and knows when it is damaged.

- `layout`: what all scenes of a cube share, and how the store looks.
- `scenes`: scenes to the bands, grid and chunks of a cube; what cannot be brought there is refused.
- `writing`: `write_cube`.
- `reading`: `open_cube`.
- `state`: what of a cube is written, without its pixels.
"""

from lakescale.cube.reading import open_cube
from lakescale.cube.state import DateState, layout_of, read_dates
from lakescale.cube.writing import Written, write_cube

__all__ = ["DateState", "Written", "layout_of", "open_cube", "read_dates", "write_cube"]
