"""Run every race once, or those named, and print the tables of README.md: ``python -m benchmarks color ingest``."""

from __future__ import annotations

import sys
from itertools import product
from typing import TYPE_CHECKING, Any

# Modules, since asv would list classes twice.
from benchmarks import (
    color_mask,
    fill_depressions,
    fill_stores,
    fuse,
    ingest,
    label_regions,
    model,
    polygonize,
    regrid,
    samples,
    scenes,
    score,
    worker_memory,
    zonal,
)
from benchmarks.races import REPEATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def print_races(benchmark: Any) -> None:
    """Print the races of one class, a line for each set of parameters."""
    _print_head(*getattr(benchmark, "param_names", ()), "ours, s", "peer, s", "ratio", "lowest and highest")
    for chosen, race in _run(benchmark, benchmark.race):
        ours, peer = (_spread(seconds, 2) for seconds in (race.ours_s, race.peer_s))
        _print_row(*chosen, ours, peer, f"**{race.ratio:.2f}**", f"{min(race.ratios):.2f} to {max(race.ratios):.2f}")


def print_tasks() -> None:
    """Print tasks a chunk, ours and dask-image's."""
    _print_head("chunks", "ours", "dask-image")
    ours, theirs = (
        dict(_run(made, made.track_tasks_a_chunk))
        for made in (label_regions.LabelTasks(), label_regions.LabelTasksDaskImage())
    )
    for chunks, count in ours.items():
        _print_row(*chunks, f"{count:.2f}", f"{theirs[chunks]:.2f}" if chunks in theirs else "skipped")


def print_memory(repeats: int = 3) -> None:
    """Print peaks of a worker at one chunk, at the size and at twice the size."""
    _print_head("size", "peak, MB")
    for size in (scenes.CHUNK, scenes.SIZE, 2 * scenes.SIZE):
        _print_row(size, _spread([worker_memory.measure_peak_mb(size) for _ in range(repeats)], 0))


def print_growth() -> None:
    """Print the memory of the fill at two sizes, and how its cost grows with the chunks."""
    _print_head("size", "peak above the empty worker, MB")
    for size in fill_stores.FillMemory.params:
        _print_row(size, f"{fill_stores.FillMemory().track_peak_mb(size):.0f}")
    _print_head("seconds a cell, 1024 chunks over 64")
    _print_row(_spread(fill_stores.FillGrowth().measure(REPEATS), 2))


def print_model_memory() -> None:
    """Print peaks of a worker that runs a model, at the size and at twice the size."""
    _print_head("size", "peak, MB")
    for size in model.ModelMemory.params:
        _print_row(size, f"{model.ModelMemory().track_peak_mb(size):.0f}")


TABLES: dict[str, Callable[[], None]] = {
    "color": lambda: print_races(color_mask.ColorMask()),
    "polygonize": lambda: print_races(polygonize.Polygonize()),
    "fill": lambda: (print_races(fill_depressions.FillBlock()), print_races(fill_depressions.FillDepressions()))[0],
    "stores": lambda: (print_races(fill_stores.FillStores()), print_growth())[0],
    "ingest": lambda: print_races(ingest.Ingest()),
    "regrid": lambda: print_races(regrid.Regrid()),
    "label": lambda: (print_tasks(), print_races(label_regions.LabelRegions()))[0],
    "model": lambda: (print_races(model.ModelThroughput()), print_model_memory())[0],
    "fuse": lambda: (print_races(fuse.FuseBare()), print_races(fuse.FuseLoop()))[0],
    "samples": lambda: print_races(samples.TrainingPatches()),
    "score": lambda: print_races(score.Score()),
    "zonal": lambda: print_races(zonal.Zonal()),
    "memory": print_memory,
}


def main(names: Sequence[str]) -> None:
    """Print the tables named, or all."""
    for name in names or TABLES:
        sys.stdout.write(f"\n{name}, {scenes.SIZE} x {scenes.SIZE}\n")
        TABLES[name]()


def _run(benchmark: Any, measure: Callable[..., Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    names = getattr(benchmark, "param_names", ())
    params = benchmark.params if len(names) > 1 else (benchmark.params,) if names else ()
    for chosen in product(*params):
        try:
            benchmark.setup(*chosen)
            yield chosen, measure(*chosen)
        except NotImplementedError:
            continue
        finally:
            getattr(benchmark, "teardown", lambda *_: None)(*chosen)


def _spread(values: Sequence[float], digits: int) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"


def _print_head(*cells: str) -> None:
    sys.stdout.write("\n")
    _print_row(*(cell.replace("_", " ") for cell in cells))
    _print_row(*("---" for _ in cells))


def _print_row(*cells: Any) -> None:
    sys.stdout.write(f"| {' | '.join(str(cell) for cell in cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
