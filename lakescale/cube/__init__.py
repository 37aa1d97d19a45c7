"""The cube: scenes of many dates on one grid, as a Zarr store that can be resumed and knows when it is damaged.

- `layout`: what all scenes of a cube share, and how the store looks.
- `writing`: `write_cube`.
- `reading`: `open_cube`.
"""

from lakescale.cube.reading import chunk_of, open_cube
from lakescale.cube.writing import Written, write_cube

__all__ = ["Written", "chunk_of", "open_cube", "write_cube"]
