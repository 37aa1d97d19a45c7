"""Arrays on disk that know which of their chunks are finished: Zarr v3, checksums, commit markers after the data.

A store is a Zarr group, on a disk or in an object store, whose arrays share one grid. Arrays that are written together,
such as the pixels of a scene and what was seen of it, are *committed* together: a marker for each chunk along y and x
lists the chunk's files with their sizes and checksums, or that they are empty (Zarr writes no file for a chunk without
data). The marker is written after the files; without it the chunk counts as not written. Markers lie in the folder of
the first array, where no reader of Zarr looks.

No file is synced to the disk one by one: after a power failure a chunk whose bytes were lost differs from its marker,
which is seen when it is read, and most often when it is written again.

- `files`: words for what a disk refuses (whole files and one writer are `lakescale.storage`).
- `group`: grid, attributes, arrays before they have chunks.
- `codec`: pixels to the bytes of a chunk, and back.
- `commits`: writing chunks and their markers, reading one chunk.
- `reader`: windows of checked chunks, lazily.
- `layers`: `write_layer` and `open_layer`, single rasters.
- `listing`: how far the layers of a store are.
- `staging`: arrays computed in stages, what waits between them in files.
- `plain`: what waits there to bytes and back, so that to read it runs nothing.
- `frames`: large frames to one GeoParquet file, never whole in memory.
"""

from lakescale.storage import locked
from lakescale.store.codec import FILLS
from lakescale.store.commits import Commits, Member
from lakescale.store.files import writing
from lakescale.store.group import (
    Raster,
    add_values,
    as_json,
    check_chunks,
    describe,
    is_store,
    make_store,
    open_array,
    open_store,
    remove_layer,
    remove_store,
    same_grid,
    stored_grid,
    tell,
)
from lakescale.store.layers import open_layer, write_layer
from lakescale.store.reader import StoredArray, lazy_array
from lakescale.store.staging import Stages, compute_in_stages

__all__ = [
    "FILLS",
    "Commits",
    "Member",
    "Raster",
    "Stages",
    "StoredArray",
    "add_values",
    "as_json",
    "check_chunks",
    "compute_in_stages",
    "describe",
    "is_store",
    "lazy_array",
    "locked",
    "make_store",
    "open_array",
    "open_layer",
    "open_store",
    "remove_layer",
    "remove_store",
    "same_grid",
    "stored_grid",
    "tell",
    "write_layer",
    "writing",
]
