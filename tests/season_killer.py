"""Runs a small season that is killed again and again, and tells what it saw; run by test_season_kill.

One process imports and warms up everything, without a thread, and forks what is killed: drivers that compute in threads
of their own, or schedulers, workers and drivers that talk over loopback. Kills are SIGKILL.
"""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import dask
import xarray as xr
from cube_killer import killed_at
from distributed import Scheduler, Worker
from season_scenes import SIZE, markers, read
from test_map_sources import slope_with_bowl

import lakescale as ls
import pipelines.season
from lakescale.grid import Grid
from lakescale.rules import outline_candidates

PORT_FILE, PATIENCE_S, ENOUGH = "scheduler.txt", 240, 100


def warm_up(recipe):
    """Load what numba compiled and what distributed imports late, so that each child need not."""
    with dask.config.set(scheduler="sync"):
        scene = ls.open_scene(recipe.scene.source[0].replace("*", "2019-07-01"), chunks=SIZE)
        mask = ls.color_mask(scene)
        dask.compute(outline_candidates(mask, recipe.polygon_rules), ls.polygonize(ls.seen_mask(scene)))
        heights = slope_with_bowl(slice(20, 60), slice(20, 60), size=SIZE)
        dem = xr.DataArray(heights, dims=("y", "x"), coords=Grid.of(scene).coords()).chunk(SIZE // 2)
        dask.compute(ls.sink_depth(dem))


def fork(run):
    """Run in a forked child, and hand back its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run()
        code = 0
    except ls.RunError as error:
        sys.stderr.write(f"{error}\n")
        code = 11
    except BaseException:  # noqa: BLE001  (whatever it is, the parent is to see it)
        traceback.print_exc()
    finally:
        os._exit(code)


def has_ended(child):
    """Give the exit code of a child, negative of a signal; None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return None if pid == 0 else os.waitstatus_to_exitcode(status)


def wait(child, patience=PATIENCE_S):
    deadline = time.monotonic() + patience
    while (code := has_ended(child)) is None:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise AssertionError("a child takes too long")
        time.sleep(0.01)
    return code


def run_season(recipe):
    pipelines.season.map_season(recipe)


def refuse_rewriting(before, run):
    """Assert that no commit that was there before was written again."""
    after = markers(run)
    changed = [key for key, stamp in before.items() if after.get(key) != stamp]
    assert not changed, f"written twice: {changed}"
    return after


def kill_drivers(recipe, most, seed):
    """Kill the driver at some change to the disk, at most so many after its start, again and again till one ends.

    The catalogue is no work that a run goes on with: it is written as a whole. So where nothing new was committed the
    next kill may come later.
    """
    moments, kills, kept = random.Random(seed), [], markers(recipe.out)
    while True:
        code = wait(fork(partial(killed_at, moments.randint(1, most), recipe.out, partial(run_season, recipe))))
        before, kept = len(kept), refuse_rewriting(kept, recipe.out)
        most = most if len(kept) > before else most * 5 // 4
        if code != -signal.SIGKILL:
            assert code == 0, f"a run ended with {code}"
            return {"kills": len(kills), "moments": kills}
        kills.append(len(kept))
        assert len(kills) < ENOUGH, "it makes no way"


def serve(folder):
    """Be a scheduler."""

    async def start():
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            (folder / PORT_FILE).write_text(scheduler.address)
            await scheduler.finished()

    asyncio.run(start())


def work(address):
    """Be a worker with one thread."""

    async def start():
        async with Worker(address, nthreads=1, dashboard=False, memory_limit=0) as worker:
            await worker.finished()

    asyncio.run(start())


def drive(recipe, address):
    """Run a season on a scheduler elsewhere, and soon see that it is gone."""
    patience = {"distributed.comm.timeouts.connect": "3s", "distributed.scheduler.allowed-failures": 10}
    cluster = recipe.cluster.model_copy(update={"kind": address, "workers": None, "dashboard": "127.0.0.1:0"})
    with dask.config.set(patience):
        run_season(recipe.model_copy(update={"cluster": cluster}))


def start_scheduler(folder):
    (folder / PORT_FILE).unlink(missing_ok=True)
    child = fork(partial(serve, folder))
    while not (folder / PORT_FILE).exists() or not (folder / PORT_FILE).read_text():
        assert has_ended(child) is None, "the scheduler did not start"
        time.sleep(0.01)
    return child, (folder / PORT_FILE).read_text()


def kill_others(recipe, what, times, seed):
    """Kill workers, or the scheduler, each time some chunks are finished; start others in their place."""
    moments, run, folder = random.Random(seed), recipe.out, Path.cwd()
    kept, kills, codes = markers(run), [], []
    scheduler, address = start_scheduler(folder)
    worker, driver = fork(partial(work, address)), fork(partial(drive, recipe, address))
    goal = len(kept) + moments.randint(1, 4)
    try:
        while True:
            code = has_ended(driver)
            if code is None and len(kills) < times and len(markers(run)) >= goal:
                kills.append(len(markers(run)))
                if what == "scheduler":
                    os.kill(scheduler, signal.SIGKILL)
                    codes.append(wait(driver))
                    os.kill(worker, signal.SIGKILL)
                    scheduler, address = start_scheduler(folder)
                    driver = fork(partial(drive, recipe, address))
                else:
                    os.kill(worker, signal.SIGKILL)
                worker = fork(partial(work, address))
                kept = refuse_rewriting(kept, run)
                goal = len(kept) + moments.randint(1, 4)
            elif code is not None:
                refuse_rewriting(kept, run)
                assert code == 0, f"the last run ended with {code}"
                return {"kills": len(kills), "moments": kills, "codes": codes}
            time.sleep(0.005)
    finally:
        for child in (driver, worker, scheduler):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def main(what, recipe_file, number, seed):
    os.chdir(Path(recipe_file).parent)
    recipe = read(Path(recipe_file))
    warm_up(recipe)
    if what == "driver":
        told = kill_drivers(recipe, int(number), int(seed))
    else:
        told = kill_others(recipe, what, int(number), int(seed))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="Use `@` matmul")
    warnings.filterwarnings("ignore", message="The 'shapely.ops.transform")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    main(*sys.argv[1:])
