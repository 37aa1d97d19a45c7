"""The command ``lakescale``. Everything heavy is imported where it is used, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakescale import __version__
from lakescale.schema import LakescaleError, without_secrets
from pipelines.cli_season import season_command
from pipelines.cli_tools import Debug, cluster_command, model_app, report_command, score_command
from pipelines.cli_training import samples_command, train_command

if TYPE_CHECKING:
    from pipelines.map_lakes import MapResult

app = typer.Typer(
    name="lakescale",
    help="Map the lakes that melt makes on ice sheets.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command: exit code 0, 2 for bad input, 1 for a failed run; a traceback only with ``--debug``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # batch schedulers end runs so; let them be written off
    try:
        app()
    except LakescaleError as error:
        _give_up(str(error), error.exit_code)
    except KeyboardInterrupt:
        _give_up("interrupted", 130)
    except Exception as error:  # noqa: BLE001  (the last resort of a command)
        what = without_secrets(f"{type(error).__name__}: {error}")
        _give_up(f"this should not have happened: {what}. Run it again with --debug, and report it", 1)


def _give_up(message: str, code: int) -> None:
    if "--debug" in sys.argv:
        raise  # noqa: PLE0704  (called from an except clause)
    typer.echo(f"lakescale: {message}", err=True)
    sys.exit(code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lakescale {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
    debug: Debug = False,
) -> None:
    """Map the lakes that melt makes on ice sheets."""
    _ = version
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutSecrets("%(message)s"))
    if not debug:
        handler.addFilter(_worth_telling)
        logging.getLogger("distributed.worker").addFilter(_no_dump)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    for name in _SIGNERS:
        logging.getLogger(name).setLevel(logging.INFO)


class _WithoutSecrets(logging.Formatter):
    """Leaves out of what is logged what URLs hold of users, passwords and queries; of tracebacks, too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


_SIGNERS = ("aiobotocore", "boto3", "botocore", "fsspec", "rasterio", "s3fs", "urllib3")
"""Libraries that log, for debugging, what they sign and with what."""


def _no_dump(record: logging.LogRecord) -> bool:
    """Drop what a worker logs of an error that is raised anyway, traceback and all."""
    return not record.getMessage().startswith("Compute Failed")


def _worth_telling(record: logging.LogRecord) -> bool:
    """Let through what lakescale says, and warnings of others (distributed logs every connection)."""
    return record.levelno >= logging.WARNING or record.name.startswith("lakescale")


@app.command("map")
def map_command(
    scene: Annotated[list[str] | None, typer.Option(help="File, folder, glob or URL; repeat it for files.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run, or its URL (s3://bucket/run).")] = None,
    dem: Annotated[list[str] | None, typer.Option(help="Elevations: file, tiles, folder, glob; adds sinks.")] = None,
    ice: Annotated[str | None, typer.Option(help="Ice: polygons in any CRS, or a raster of percent.")] = None,
    aoi: Annotated[str | None, typer.Option(help="Area of interest: nothing outside it is a lake.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Polygons whose touch drops a lake (mountains).")] = None,
    date: Annotated[str | None, typer.Option(help="Date of the scene, over the one in its name.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands, in order: red,green,blue.")] = None,
    scale: Annotated[float | None, typer.Option(help="Reflectance = number * scale + offset.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    nodata: Annotated[str | None, typer.Option(help="Value that means no data, or 'cup'.")] = None,
    like: Annotated[str | None, typer.Option(help="Raster whose grid the run takes.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the run's grid, in metres [the scene's].")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel of the run's grid, m [the scene's].")] = None,
    cloud: Annotated[str | None, typer.Option(help="auto, moussavi, williamson, scl, s2cloudless or none.")] = None,
    sinks_engine: Annotated[str | None, typer.Option(help="tiled or whitebox [tiled].")] = None,
    dem_nodata: Annotated[float | None, typer.Option(help="Value that means no elevation.")] = None,
    min_sink_depth_m: Annotated[float | None, typer.Option(help="Depth from which a sink counts, m [0.5].")] = None,
    min_sink_share: Annotated[float | None, typer.Option(help="Share of a lake that must lie in sinks [0].")] = None,
    ice_percent: Annotated[float | None, typer.Option(help="Of a raster: more than this is ice [50].")] = None,
    largest_ice: Annotated[bool | None, typer.Option(help="Only the largest piece of ice counts [no].")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Checkpoint, or NAME=CHECKPOINT; repeat it.")] = None,
    model_threshold: Annotated[float | None, typer.Option(help="Least probability of lake [the model's].")] = None,
    model_stride: Annotated[int | None, typer.Option(help="Pixels between windows [half a window].")] = None,
    model_gate: Annotated[bool | None, typer.Option(help="Skip windows without other evidence [no].")] = None,
    model_device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ... [auto].")] = None,
    model_precision: Annotated[str | None, typer.Option(help="On CUDA: bf16 or fp16 [float32].")] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="What the lakes are made of: color, index, auto (color or index, by the scene) or model (the first "
            "one). Models beside color or index are not mixed in, unless with --fuse: see candidates_NAME.parquet."
        ),
    ] = None,
    fuse: Annotated[
        str | None, typer.Option(help="Fuse models, index, sinks, color and ice to lakes: seed, lakescale or none.")
    ] = None,
    index_threshold: Annotated[float | None, typer.Option(help="NDWI_ice above which a pixel is water [0.25].")] = None,
    preset: Annotated[str | None, typer.Option(help="Polygon rules: lakescale or cup.")] = None,
    min_area_m2: Annotated[float | None, typer.Option(help="Least true area of a lake, m2 [5000].")] = None,
    min_area_3857_m2: Annotated[float | None, typer.Option(help="Least area in EPSG:3857, m2 [0].")] = None,
    max_elongation: Annotated[float | None, typer.Option(help="Longer than this times wide: a stream [10].")] = None,
    neck_px: Annotated[int | None, typer.Option(help="Narrower parts may be cut, pixels [5]; 0 for off.")] = None,
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
    chunks: Annotated[int | None, typer.Option(help="Side of a chunk, pixels [2048].")] = None,
    cluster: Annotated[str | None, typer.Option(help="local, threads, or a scheduler's address [local].")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of workers [one a core].")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")] = None,
    dashboard: Annotated[str | None, typer.Option(help="Address of the dashboard [127.0.0.1:0]; none for off.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe.yaml; options given here win.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
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
    nested |= {f"cluster__{name}": values[name] for name in ("workers", "memory_limit", "dashboard")}
    asked = read_recipe(
        recipe,
        scene__source=scene,
        scene__bands=_names(bands),
        scene__nodata=_number_or_word(nodata),
        cluster__kind=cluster,
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
        for name, value in plan(asked).items():
            typer.echo(f"{name}: {value}")
        return
    _tell(map_lakes(asked, overwrite=overwrite, progress=True))


_PLAIN = (
    "out", "aoi", "exclude", "cloud", "evidence", "fuse", "index_threshold", "min_sink_share", "preset", "cup_regions",
    "image",
)  # fmt: skip
_MODELS = ("threshold", "stride", "gate", "device", "precision")
_RULES = ("min_area_m2", "min_area_3857_m2", "max_elongation", "neck_px", "neck_rule", "fill_holes")


@app.command("ingest")
def ingest_command(
    scene: Annotated[list[str] | None, typer.Option(help="File, folder, glob or URL of one or many dates.")] = None,
    out: Annotated[str | None, typer.Option(help="The cube: cube.zarr, or its URL (s3://bucket/cube.zarr).")] = None,
    like: Annotated[str | None, typer.Option(help="Raster whose grid a new cube takes.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a new cube [the first scene's].")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel of a new cube, m [the first scene's].")] = None,
    dem: Annotated[list[str] | None, typer.Option(help="Elevations, to dem.zarr beside the cube.")] = None,
    dem_nodata: Annotated[float | None, typer.Option(help="Value that means no elevation.")] = None,
    cog: Annotated[bool, typer.Option("--cog", help="Write each date as a GeoTIFF beside the cube, too.")] = False,
    date: Annotated[str | None, typer.Option(help="Date of the scene; of many dates the one wanted.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands wanted: red,green,blue.")] = None,
    scale: Annotated[float | None, typer.Option(help="Reflectance = number * scale + offset.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    nodata: Annotated[str | None, typer.Option(help="Value that means no data, or 'cup'.")] = None,
    chunks: Annotated[int | None, typer.Option(help="Side of a chunk of a new cube, pixels [2048].")] = None,
    cluster: Annotated[str | None, typer.Option(help="local, threads, or a scheduler's address [local].")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of workers [one a core].")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")] = None,
    dashboard: Annotated[str | None, typer.Option(help="Address of the dashboard [127.0.0.1:0]; none for off.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write dates anew that the cube has.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Write scenes of one or many dates to a Zarr cube on one grid; run again after a kill, it goes on."""
    from pipelines.ingest import describe_plan, ingest
    from pipelines.ingest_recipe import read_ingest_recipe

    _ = debug
    values = locals()
    asked = read_ingest_recipe(
        scene__source=scene or None,
        scene__bands=_names(bands),
        scene__nodata=_number_or_word(nodata),
        dem__source=dem or None,
        dem__nodata=dem_nodata,
        grid__like=like,
        grid__crs=crs,
        grid__resolution_m=resolution,
        cluster__kind=cluster,
        **{f"scene__{name}": values[name] for name in ("date", "scale", "offset", "chunks")},
        **{f"cluster__{name}": values[name] for name in ("workers", "memory_limit", "dashboard")},
        **{name: values[name] for name in ("out", "cog")},
    )
    if dry_run:
        for name, value in describe_plan(asked).items():
            typer.echo(f"{name}: {value}")
        return
    done = ingest(asked, overwrite=overwrite, progress=True)
    typer.echo(f"{done.cube}: {', '.join(done.dates)}")
    speed = f", {done.mb_per_s:.0f} MB/s" if done.chunks_written else ""
    typer.echo(f"{done.chunks_written} chunks written, {done.chunks_skipped} were there{speed}")
    for note in done.notes:
        typer.echo(note)
    for path in (*done.cogs, *filter(None, [done.dem])):
        typer.echo(f"written: {path}")


@app.command("sinks")
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
    nodata: Annotated[float | None, typer.Option(help="Value that means no elevation.")] = None,
    overlap: Annotated[str | None, typer.Option(help="Where tiles overlap: first or mean [first].")] = None,
    chunks: Annotated[int | None, typer.Option(help="Side of a chunk, pixels [2048].")] = None,
    cluster: Annotated[str | None, typer.Option(help="local, threads, or a scheduler's address [local].")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of workers [one a core].")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")] = None,
    dashboard: Annotated[str | None, typer.Option(help="Address of the dashboard [127.0.0.1:0]; none for off.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another run wrote to OUT.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Fill the depressions of a DEM; write the depth of its sinks, and their outlines with area and capacity."""
    from pipelines.sinks_recipe import read_sinks_recipe

    _ = debug
    values = locals()
    asked = read_sinks_recipe(
        source=dem,
        cluster__kind=cluster,
        **{f"cluster__{name}": values[name] for name in ("workers", "memory_limit", "dashboard")},
        **{name: values[name] for name in _SINKS},
    )
    if dry_run:
        from pipelines.sinks_plan import describe_plan

        for name, value in describe_plan(asked).items():
            typer.echo(f"{name}: {value}")
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


app.command("season")(season_command)
app.command("samples")(samples_command)
app.command("train")(train_command)
app.add_typer(model_app, name="model")
app.command("score")(score_command)
app.command("report")(report_command)


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the scenes, the runs and the scores.")],
    size: Annotated[int, typer.Option(min=256, help="Side of the region, pixels of 10 m.")] = 2048,
    seed: Annotated[int, typer.Option(help="Another region for every number.")] = 1,
    cluster: Annotated[str, typer.Option(help="local, threads, or a scheduler's address.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers [one a core].")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Make up two dates of an ice sheet, map them from files, and score the lakes against the truth."""
    from pipelines.demo import describe_plan, run_demo

    _ = debug
    if dry_run:
        for name, value in describe_plan(out, size=size, seed=seed).items():
            typer.echo(f"{name}: {value}")
        return
    options: dict[str, Any] = {"cluster": cluster, "workers": workers, "memory_limit": memory_limit}
    for line in run_demo(out, size=size, seed=seed, overwrite=overwrite, **options):
        typer.echo(line)


app.command("cluster")(cluster_command)


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def _number_or_word(text: str | None) -> Any:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


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
