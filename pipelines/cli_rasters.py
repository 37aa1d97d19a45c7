"""Commands ``ingest`` and ``sinks``. What is heavy is imported where it is used."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli_options import (
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


def ingest_command(
    scene: Annotated[list[str] | None, typer.Option(help="File, folder, glob or URL of one or many dates.")] = None,
    out: Annotated[str | None, typer.Option(help="The cube: cube.zarr, or its URL (s3://bucket/cube.zarr).")] = None,
    like: Annotated[str | None, typer.Option(help="Raster whose grid a new cube takes.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a new cube [the first scene's].")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel of a new cube, m [the first scene's].")] = None,
    dem: Annotated[list[str] | None, typer.Option(help="Elevations, to dem.zarr beside the cube.")] = None,
    dem_nodata: DemNodata = None,
    cog: Annotated[bool, typer.Option("--cog", help="Write each date as a GeoTIFF beside the cube, too.")] = False,
    date: Annotated[str | None, typer.Option(help="Date of the scene; of many dates the one wanted.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands wanted: red,green,blue.")] = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    chunks: Chunks = None,
    cluster: Cluster = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    dashboard: Dashboard = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write dates anew that the cube has.")] = False,
    performance_report: PerformanceReport = False,
    dry_run: DryRun = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Write scenes of one or many dates to a Zarr cube on one grid; run again after a kill, it goes on."""
    from pipelines.ingest import describe_plan, ingest
    from pipelines.ingest_recipe import read_ingest_recipe

    values = locals()
    asked = read_ingest_recipe(
        scene__source=scene or None,
        scene__bands=read_names(bands),
        scene__nodata=number_or_word(nodata),
        dem__source=dem or None,
        dem__nodata=dem_nodata,
        grid__like=like,
        grid__crs=crs,
        grid__resolution_m=resolution,
        **{f"scene__{name}": values[name] for name in ("date", "scale", "offset", "chunks")},
        **cluster_options(values),
        **{name: values[name] for name in ("out", "cog")},
    )
    if dry_run:
        show(describe_plan(asked))
        return
    done = ingest(asked, overwrite=overwrite, progress=True)
    typer.echo(f"{done.cube}: {', '.join(done.dates)}")
    speed = f", {done.mb_per_s:.0f} MB/s" if done.chunks_written else ""
    typer.echo(f"{done.chunks_written} chunks written, {done.chunks_skipped} were there{speed}")
    for note in done.notes:
        typer.echo(note)
    for path in (*done.cogs, *filter(None, [done.dem])):
        typer.echo(f"written: {path}")


def sinks_command(
    dem: Annotated[list[str], typer.Argument(help="Elevations: file, tiles, folder, glob, or dem.zarr.")],
    out: Annotated[str, typer.Argument(help="X.zarr (layers, regions), X.tif (depth, regions), X.parquet (regions).")],
    filled: Annotated[
        bool, typer.Option("--filled", help="With X.tif: write X_filled.tif, the filled DEM, too.")
    ] = False,
    drained: Annotated[
        bool,
        typer.Option("--drained", help="Also write the filled DEM with flats that drain: a layer, or X_drained.tif."),
    ] = False,
    engine: Annotated[str | None, typer.Option(help="tiled or whitebox [tiled].")] = None,
    voids: Annotated[str | None, typer.Option(help="What enclosed voids are: wall or outlet [wall].")] = None,
    min_depth_m: Annotated[float | None, typer.Option(help="Least depth of a sink, m [0].")] = None,
    min_area_m2: Annotated[float | None, typer.Option(help="Least true area of a sink, m2 [0].")] = None,
    levels: Annotated[int | None, typer.Option(help="Levels of sinks within sinks, in the regions [1].")] = None,
    nodata: Nodata = None,
    overlap: Annotated[str | None, typer.Option(help="Where tiles overlap: first or mean [first].")] = None,
    chunks: Chunks = None,
    cluster: Cluster = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    dashboard: Dashboard = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another run wrote to OUT.")] = False,
    performance_report: PerformanceReport = False,
    dry_run: DryRun = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Fill the depressions of a DEM; write the depth of its sinks, and their outlines with area and capacity."""
    from pipelines.sinks_recipe import read_sinks_recipe

    values = locals()
    asked = read_sinks_recipe(
        source=dem,
        **cluster_options(values),
        **{name: values[name] for name in _SINKS},
    )
    if dry_run:
        from pipelines.sinks_plan import describe_plan

        show(describe_plan(asked))
        return
    from pipelines.sinks import find_sinks

    done = find_sinks(asked, overwrite=overwrite, progress=True)
    if done.count is not None:
        size = f"{done.area_m2 / 1e6:.3f} km2 of true area, {done.capacity_m3 / 1e9:.6g} km3 of capacity"
        typer.echo(f"{done.count} sink{'s' * (done.count != 1)}, {size}")
    typer.echo(f"{done.chunks_written} chunks written in {done.seconds:.1f} s")
    for path in done.written:
        typer.echo(f"written: {path}")


_SINKS = (
    "out", "filled", "drained", "engine", "voids", "min_depth_m", "min_area_m2", "levels", "nodata", "overlap",
    "chunks",
)  # fmt: skip
