"""Three ways to cross the seams between chunks, each written once, each with its serial twin.

- `map_tiles`: a function of each chunk and a halo round it (filters).
- `stitch`: solve each block, solve the small graph of the seams, apply the answer to each block (labels, holes,
  depressions); `gather` is its sibling for answers that are no longer blocks (outlines, tables).
- `overlap_add`: windows larger than their stride (models); each runs once, neighbours add its overflowing strips.

Beside them, `pull` makes each block of another grid from a planned window of source pixels, and `sink` hands some
blocks to a function that writes them. `map_beside` hands each block what its neighbours share with it, where blocks
are no arrays. `merge_tree` joins ever larger squares of blocks and finishes in each what reaches no further.
`ask_zones` deals polygons out to the chunks that they meet, and `pairing` lets blocks of polygons meet two by two.
`run_in_stages` cuts a graph into small ones where results wait.

No other module writes tasks. The serial twins (`map_tiles_serial`, ...) run the same functions over the same
plan in a plain loop, without dask.
"""

from lakescale.chunks.blocks import Blocks, PackedBits, map_blocks, on_dask, read_again, split_blocks, zip_blocks
from lakescale.chunks.plan import Chunks, Place, Tile, WindowPlan, plan_blocks, plan_tiles, split_key
from lakescale.chunks.pull import pull, pull_serial
from lakescale.chunks.seams import Stitch, from_frame, gather, gather_serial, stitch, stitch_serial, to_frame
from lakescale.chunks.sink import sink, sink_parts, sink_serial
from lakescale.chunks.solving import Tree
from lakescale.chunks.stages import Shelf, run_in_stages
from lakescale.chunks.tiles import map_beside, map_tiles, map_tiles_serial, with_least_chunks
from lakescale.chunks.tree import Merge, merge_tree, merge_tree_serial
from lakescale.chunks.windows import overlap_add, overlap_add_serial
from lakescale.chunks.zones import Zones, ask_zones, ask_zones_serial

__all__ = [
    "Blocks",
    "Chunks",
    "Merge",
    "PackedBits",
    "Place",
    "Shelf",
    "Stitch",
    "Tile",
    "Tree",
    "WindowPlan",
    "Zones",
    "ask_zones",
    "ask_zones_serial",
    "from_frame",
    "gather",
    "gather_serial",
    "map_beside",
    "map_blocks",
    "map_tiles",
    "map_tiles_serial",
    "merge_tree",
    "merge_tree_serial",
    "on_dask",
    "overlap_add",
    "overlap_add_serial",
    "plan_blocks",
    "plan_tiles",
    "pull",
    "pull_serial",
    "read_again",
    "run_in_stages",
    "sink",
    "sink_parts",
    "sink_serial",
    "split_blocks",
    "split_key",
    "stitch",
    "stitch_serial",
    "to_frame",
    "with_least_chunks",
    "zip_blocks",
]
