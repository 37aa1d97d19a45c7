"""The command ``lakescale``. Everything heavy is imported where it is used, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakescale import __version__
from lakescale.schema import LakescaleError

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
        what = f"{type(error).__name__}: {error}"
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


Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")]


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
    debug: Debug = False,
) -> None:
    """Map the lakes that melt makes on ice sheets."""
    _ = version
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    if not debug:
        handler.addFilter(_worth_telling)
        logging.getLogger("distributed.worker").addFilter(_no_dump)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])


def _no_dump(record: logging.LogRecord) -> bool:
    """Drop what a worker logs of an error that is raised anyway, traceback and all."""
    return not record.getMessage().startswith("Compute Failed")


def _worth_telling(record: logging.LogRecord) -> bool:
    """Let through what lakescale says, and warnings of others (distributed logs every connection)."""
    return record.levelno >= logging.WARNING or record.name.startswith("lakescale")


@app.command("map")
def map_command(
    scene: Annotated[list[str] | None, typer.Option(help="File, folder, glob or URL; repeat it for files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    ice: Annotated[str | None, typer.Option(help="Ice outline: polygons in any CRS.")] = None,
    aoi: Annotated[str | None, typer.Option(help="Area of interest: nothing outside it is a lake.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Polygons whose touch drops a lake (mountains).")] = None,
    date: Annotated[str | None, typer.Option(help="Date of the scene, over the one in its name.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands, in order: red,green,blue.")] = None,
    scale: Annotated[float | None, typer.Option(help="Reflectance = number * scale + offset.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    nodata: Annotated[str | None, typer.Option(help="Value that means no data, or 'cup'.")] = None,
    evidence: Annotated[str | None, typer.Option(help="auto, color or index.")] = None,
    index_threshold: Annotated[float | None, typer.Option(help="NDWI_ice above which a pixel is water [0.25].")] = None,
    preset: Annotated[str | None, typer.Option(help="Polygon rules: lakescale or cup.")] = None,
    min_area_m2: Annotated[float | None, typer.Option(help="Least true area of a lake, m2 [5000].")] = None,
    min_area_3857_m2: Annotated[float | None, typer.Option(help="Least area in EPSG:3857, m2 [0].")] = None,
    max_elongation: Annotated[float | None, typer.Option(help="Longer than this times wide: a stream [10].")] = None,
    neck_px: Annotated[int | None, typer.Option(help="Narrower parts may be cut, pixels [5]; 0 for off.")] = None,
    neck_rule: Annotated[str | None, typer.Option(help="Which are cut: bridges or streams [streams].")] = None,
    fill_holes: Annotated[bool | None, typer.Option(help="Whether islands and lids are lake [yes].")] = None,
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
    """Map the lakes of one scene: evidence, polygons, lakes, a picture."""
    from pipelines.map_lakes import map_lakes, plan
    from pipelines.recipe import read_recipe

    if not debug:
        logging.getLogger("lakescale.scene").setLevel(logging.ERROR)  # the run's notes say the same, once
    values = locals()
    nested = {f"scene__{name}": values[name] for name in ("date", "scale", "offset", "chunks")}
    nested |= {f"rules__{name}": values[name] for name in _RULES}
    nested |= {f"cluster__{name}": values[name] for name in ("workers", "memory_limit", "dashboard")}
    asked = read_recipe(
        recipe,
        scene__source=scene,
        scene__bands=[name.strip() for name in bands.split(",")] if bands else None,
        scene__nodata=_number_or_word(nodata),
        cluster__kind=cluster,
        **nested,
        **{name: values[name] for name in ("out", "ice", "aoi", "exclude", "evidence", "index_threshold", "preset")},
    )
    if dry_run:
        for name, value in plan(asked).items():
            typer.echo(f"{name}: {value}")
        return
    _tell(map_lakes(asked, overwrite=overwrite, progress=True))


_RULES = ("min_area_m2", "min_area_3857_m2", "max_elongation", "neck_px", "neck_rule", "fill_holes")


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
    typer.echo(f"written to {result.out}: lakes.parquet, lakes.gpkg, candidates.parquet, quicklook.png")
