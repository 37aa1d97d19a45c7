"""Photograph Dask's dashboard in runs on the real scene 22WEV, mirrored again and again: docs/img/dashboard_*.png.

Run from the repository's root, with Chromium: LAKESCALE_DATA=../shared/data python docs/figures/dashboard.py [NAME ...]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from playwright.sync_api import Error, sync_playwright

IMAGES = Path(__file__).parents[1] / "img"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PORT = 8797
EVERY_S, PATIENCE_S = 1.0, 60
WIDTH, HEIGHT, SHOWN = 1280, 760, 720
MAP = [sys.executable, "-m", "lakescale", "map", "--scene", "MOSAIC", "--evidence", "index", "--no-report"]
KEEP = """
import sys
import lakescale as ls
from lakescale.cluster import open_cluster

with open_cluster(workers=2, memory_limit="550MB", dashboard=sys.argv[1]) as client:
    index = ls.water_index(ls.open_scene(sys.argv[2], chunks=1024)).persist()
    print(float((index > 0.25).mean().compute()))
"""
RUNS = {
    "good": ([*MAP, "--workers", "2", "--chunks", "2048", "--memory-limit", "2GB"], 8192, 0.67),
    "small_chunks": ([*MAP, "--workers", "2", "--chunks", "256", "--memory-limit", "2GB"], 4096, 0.6),
    "spilling": ([sys.executable, "-c", KEEP, f"127.0.0.1:{PORT}", "MOSAIC"], 8192, 0.83),
}
"""Of each run its command, pixels a side, and the share of its time at which the picture is taken."""


def mirror(folder, size):
    """Write a mosaic of a scene's bands, mirrored again and again until it is large enough."""
    scenes = Path(os.environ["LAKESCALE_DATA"], "scenes", "22WEV_2019-07-23")
    for path in scenes.glob("*_B0*.tif"):
        with rasterio.open(path) as scene:
            band = scene.read(1)
            profile = scene.profile | {"width": size, "height": size, "blockxsize": 512, "blockysize": 512}
        with rasterio.open(Path(folder, path.name), "w", **profile) as mosaic:
            mosaic.write(np.pad(band, [(0, size - side) for side in band.shape], mode="symmetric"), 1)


def photograph(name):
    command, size, share = RUNS[name]
    with tempfile.TemporaryDirectory() as mosaic, tempfile.TemporaryDirectory() as folder:
        mirror(mosaic, size)
        command = [mosaic if word == "MOSAIC" else word for word in command]
        if "map" in command:
            command = [*command, "--dashboard", f"127.0.0.1:{PORT}", "--out", f"{folder}/RUN"]
        frames = watch(subprocess.Popen(command), Path(folder))  # noqa: S603
        picture = Image.open(frames[int(share * len(frames))]).convert("RGB").crop((0, 0, WIDTH, SHOWN))
    out = IMAGES / f"dashboard_{name}.png"
    picture.quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)
    print(out, len(frames), "frames", out.stat().st_size, "bytes")


def watch(run, folder):
    """Take a picture of the first page now and then, from when it is there until it is gone."""
    frames = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for _ in range(int(PATIENCE_S / 0.3)):
            try:
                page.goto(f"http://127.0.0.1:{PORT}/status")
                break
            except Error:
                time.sleep(0.3)
        while run.poll() is None:
            frames.append(folder / f"{len(frames)}.png")
            page.screenshot(path=frames[-1])
            time.sleep(EVERY_S)
        browser.close()
    return frames


if __name__ == "__main__":
    for asked in sys.argv[1:] or RUNS:
        photograph(asked)
