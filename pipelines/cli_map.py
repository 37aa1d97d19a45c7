"""The command ``map``. What is heavy is imported where it is used."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_options import (
    Bands,
    Chunks,
    Cluster,
    Dashboard,
    Debug,
    DemNodata,
    DryRun,
    LogFormat,
    MemoryLimit,
    Nodata,
    Offset,
    PerformanceReport,
    Scale,
    Workers,
    cluster_options,
    number_or_word,
    read_names,
    show,
)

if TYPE_CHECKING:
    from pipelines.map_result import MapResult


def map_command(
    scene: Annotated[list[str] | None, typer.Option(help="File, folder, glob or URL; repeat it for files.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run, or its URL (s3://bucket/run).")] = None,
    dem: Annotated[list[str] | None, typer.Option(help="Elevations: file, tiles, folder, glob; adds sinks.")] = None,
    ice: Annotated[str | None, typer.Option(help="Ice: polygons in any CRS, or a raster of percent.")] = None,
    aoi: Annotated[str | None, typer.Option(help="Area of interest: nothing outside it is a lake.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Polygons whose touch drops a lake (mountains).")] = None,
    date: Annotated[str | None, typer.Option(help="Date of the scene, over the one in its name.")] = None,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    like: Annotated[str | None, typer.Option(help="Raster whose grid the run takes.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the run's grid, in metres [the scene's].")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel of the run's grid, m [the scene's].")] = None,
    cloud: Annotated[str | None, typer.Option(help="auto, moussavi, williamson, scl, s2cloudless or none.")] = None,
    sinks_engine: Annotated[str | None, typer.Option(help="tiled or whitebox [tiled].")] = None,
    dem_nodata: DemNodata = None,
    min_sink_depth_m: Annotated[float | None, typer.Option(help="Depth from which a sink counts, m [0.5].")] = None,
    min_sink_share: Annotated[float | None, typer.Option(help="Share of a lake that must lie in sinks [0].")] = None,
    ice_percent: Annotated[float | None, typer.Option(help="Of a raster: more than this is ice [50].")] = None,
    largest_ice: Annotated[bool | None, typer.Option(help="Only the largest piece of ice counts [no].")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Checkpoint, NAME=CHECKPOINT, or none [shipped].")] = None,
    model_threshold: Annotated[float | None, typer.Option(help="Least probability of lake [the model's].")] = None,
    model_stride: Annotated[int | None, typer.Option(help="Pixels between windows [half a window].")] = None,
    model_gate: Annotated[bool | None, typer.Option(help="Skip windows without other evidence [no].")] = None,
    model_device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ... [auto].")] = None,
    model_precision: Annotated[str | None, typer.Option(help="On CUDA: bf16 or fp16 [float32].")] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="What is looked at: auto (models, and color and index as the scene allows), or color, index or model "
            "alone: the lakes are then made of that, and nothing is fused unless --fuse says so."
        ),
    ] = None,
    fuse: Annotated[
        str | None, typer.Option(help="Fuse models, index, sinks, color and ice: lakescale, seed or none [lakescale].")
    ] = None,
    index_threshold: Annotated[float | None, typer.Option(help="NDWI_ice above which a pixel is water [0.25].")] = None,
    preset: Annotated[str | None, typer.Option(help="Polygon rules: lakescale or cup.")] = None,
    min_area_m2: Annotated[float | None, typer.Option(help="Least true area of a lake, m2 [5000].")] = None,
    min_area_3857_m2: Annotated[float | None, typer.Option(help="Least area in EPSG:3857, m2 [0].")] = None,
    max_elongation: Annotated[float | None, typer.Option(help="Longer than this times wide: a stream [10].")] = None,
    neck_px: Annotated[int | None, typer.Option(help="Narrower parts may be cut, pixels [5]; 0 for off.")] = None,
    gap_m: Annotated[float | None, typer.Option(help="Gaps in a lake up to so wide are closed, m [80].")] = None,
    neck_rule: Annotated[str | None, typer.Option(help="Which are cut: bridges or streams [streams].")] = None,
    fill_holes: Annotated[bool | None, typer.Option(help="Whether islands and lids are lake [yes].")] = None,
    cup_regions: Annotated[
        str | None, typer.Option(help="Regions with region_num: write lake_polygons_test.gpkg, too.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image's name in lake_polygons_test.gpkg [the file].")] = None,
    no_evidence: Annotated[
        bool, typer.Option("--no-evidence", help="Do not write evidence.zarr (workers must see --out to write it).")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    chunks: Chunks = None,
    cluster: Cluster = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    dashboard: Dashboard = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe.yaml; options given here win.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in the folder.")] = False,
    performance_report: PerformanceReport = False,
    dry_run: DryRun = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Map the lakes of one scene: evidence, polygons, lakes, a picture, and a page that shows them."""
    from pipelines.map_lakes import map_lakes, plan
    from pipelines.recipe import read_recipe

    if not debug:
        logging.getLogger("lakescale.scene").setLevel(logging.ERROR)  # the run's notes say the same, once
    values = locals()
    nested = {f"scene__{name}": values[name] for name in ("date", "scale", "offset", "chunks")}
    nested |= {f"rules__{name}": values[name] for name in _RULES}
    nested |= {f"models__{name}": values[f"model_{name}"] for name in _MODELS}
    nested |= cluster_options(values)
    asked = read_recipe(
        recipe,
        scene__source=scene,
        scene__bands=read_names(bands),
        scene__nodata=number_or_word(nodata),
        dem__source=dem or None,
        dem__engine=sinks_engine,
        dem__nodata=dem_nodata,
        dem__min_depth_m=min_sink_depth_m,
        ice__source=ice,
        ice__min_percent=ice_percent,
        ice__largest=largest_ice,
        grid__like=like,
        grid__crs=crs,
        grid__resolution_m=resolution,
        models=model or None,
        write_evidence=False if no_evidence else None,
        report=False if no_report else None,
        **nested,
        **{name: values[name] for name in _PLAIN},
    )
    if dry_run:
        show(plan(asked))
        return
    _tell(map_lakes(asked, overwrite=overwrite, progress=True))


_PLAIN = (
    "out", "aoi", "exclude", "cloud", "evidence", "fuse", "index_threshold", "min_sink_share", "preset", "cup_regions",
    "image",
)  # fmt: skip
_MODELS = ("threshold", "stride", "gate", "device", "precision")
_RULES = ("min_area_m2", "min_area_3857_m2", "max_elongation", "neck_px", "neck_rule", "fill_holes", "gap_m")


def _tell(result: MapResult) -> None:
    from lakescale.schema import AREA_M2, KEPT, REASON

    for note in result.notes:
        typer.echo(note)
    dropped = result.candidates[REASON].value_counts().drop(KEPT, errors="ignore")
    count = len(result.lakes)
    typer.echo(f"{count} lake{'s' * (count != 1)}, {result.lakes[AREA_M2].sum() / 1e6:.3f} km2 of true area")
    for reason, count in sorted(dropped.items()):
        typer.echo(f"  not lakes: {count} {reason}")
    of_models = "".join(f", candidates_{name}.parquet" for name in result.of_models)
    page = ", report.html" if (result.out / "report.html").exists() else ""
    files = f"lakes.parquet, lakes.gpkg, candidates.parquet, quicklook.png{of_models}{page}"
    typer.echo(f"written to {result.out}: {files}")
