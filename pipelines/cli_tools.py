"""Commands beside the main job: ``model``, ``score``, ``report``, ``cluster``, ``demo``. Heavy imports wait."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli_options import Debug, DryRun, LogFormat, MemoryLimit, Workers, show

model_app = typer.Typer(help="Look into a model's checkpoint, or convert someone else's.", no_args_is_help=True)


@model_app.command("info")
def model_info(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint of lakescale, .safetensors, or its URL.")],
    debug: Debug = False,
) -> None:
    """Say what a checkpoint is: network, bands, values, window, threshold, training, hash."""
    from lakescale.models import describe_checkpoint

    told = describe_checkpoint(checkpoint)
    about = told.spec.to_dict() | {"output_stride": told.output_stride, "weights": told.n_weights}
    for name, value in (about | {"bytes": told.n_bytes, "hash": told.hash}).items():
        typer.echo(f"{name}: {value}")


@model_app.command("convert")
def model_convert(
    source: Annotated[Path, typer.Argument(help="SAM weights of Meta or Hugging Face: .pth, .bin or .safetensors.")],
    target: Annotated[Path, typer.Argument(help="The checkpoint to write, .safetensors.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint of that name.")] = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint of lakescale from weights that others trained; no code in them is run."""
    from lakescale.models import convert_checkpoint

    told = convert_checkpoint(source, target, overwrite=overwrite)
    typer.echo(f"written: {target}, hash {told}")


def score_command(
    lakes: Annotated[str, typer.Argument(help="Vector file, or the folder of a run; or the URL of either.")],
    reference: Annotated[str, typer.Argument(help="Vector file of the reference lakes.")],
    rules: Annotated[str, typer.Option(help="strict or seed.")] = "strict",
    out: Annotated[str | None, typer.Option(help="Folder, or NAME.json, for the figures and the matches.")] = None,
    lakes_layer: Annotated[str | None, typer.Option(help="Layer of the lakes.")] = None,
    reference_layer: Annotated[str | None, typer.Option(help="Layer of the reference.")] = None,
    as_one_group: Annotated[
        bool, typer.Option(help="Score all against all, whatever image and region_num say.")
    ] = False,
    image: Annotated[str | None, typer.Option(help="Score this image alone; name it where the lakes do not.")] = None,
    regions: Annotated[str | None, typer.Option(help="Regions with region_num, for lakes without it.")] = None,
    probability: Annotated[
        str | None, typer.Option(help="GeoTIFF, store or run with the probability of lake: score pixels, too.")
    ] = None,
    probability_layer: Annotated[
        str | None, typer.Option(help="Layer of the store [the only one named probability...].")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Probability above which a pixel is lake.")] = 0.5,
    report: Annotated[bool, typer.Option("--report", help="Draw score.png beside the figures.")] = False,
    cluster: Annotated[str, typer.Option(help="For pixels: local, threads, or a scheduler's address.")] = "local",
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Score lakes against a reference by the Cup's rules: true and false positives, what was missed, and why."""
    from pipelines.evaluate import evaluate, format_score

    values = locals()
    if not debug:
        for noted in ("lakescale.score_input", "pipelines.cup"):
            logging.getLogger(noted).setLevel(logging.ERROR)  # the notes below say the same, once
    found = evaluate(lakes, reference, out=out, **{name: values[name] for name in _SCORE})
    typer.echo(format_score(found.score, found.areas, found.pixels))
    for note in found.notes:
        typer.echo(note)
    if out is not None:
        typer.echo(f"written to {out}")


_SCORE = (
    "rules", "lakes_layer", "reference_layer", "as_one_group", "image", "regions", "probability", "probability_layer",
    "threshold", "report", "cluster", "workers", "memory_limit",
)  # fmt: skip


def report_command(
    run: Annotated[str, typer.Argument(help="Folder of a run, of a season, or of a date of a season.")],
    out: Annotated[str | None, typer.Option(help="The file to write [RUN/report.html].")] = None,
    debug: Debug = False,
) -> None:
    """Write the page that shows a run or a season anew; it opens in a browser without a network."""
    from lakescale.storage import size_of
    from pipelines.report import write_report

    written = write_report(run, out)
    typer.echo(f"written: {written}, {(size_of(written) or 0) / 1e6:.1f} MB")


def cluster_command(
    workers: Annotated[int | None, typer.Option(help="CPU workers, one thread each [a core each].")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs, one worker each [all there are]; 0 for none.")] = None,
    memory_limit: MemoryLimit = None,
    dashboard: Annotated[str, typer.Option(help="Address of the dashboard; none for off.")] = "127.0.0.1:0",
    host: Annotated[str, typer.Option(help="Address to listen on: whoever reaches it may run code.")] = "127.0.0.1",
    scheduler_file: Annotated[Path | None, typer.Option(help="Write the scheduler's address here, as JSON.")] = None,
    debug: Debug = False,
) -> None:
    """Start a cluster on this machine, one worker for each GPU beside those for CPUs, and keep it until Ctrl-C."""
    from pipelines.start_cluster import plan_cluster, start_cluster

    start_cluster(
        plan_cluster(workers, gpus),
        memory_limit=memory_limit,
        dashboard=dashboard,
        host=host,
        scheduler_file=scheduler_file,
        tell=typer.echo,
    )


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the scenes, the runs and the scores.")],
    size: Annotated[int, typer.Option(min=256, help="Side of the region, pixels of 10 m.")] = 2048,
    seed: Annotated[int, typer.Option(help="Another region for every number.")] = 1,
    cluster: Annotated[str, typer.Option(help="local, threads, or a scheduler's address.")] = "local",
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo in the folder.")] = False,
    dry_run: DryRun = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Make up two dates of an ice sheet, map them from files, and score the lakes against the truth."""
    from pipelines.demo import describe_plan, run_demo

    if dry_run:
        show(describe_plan(out, size=size, seed=seed))
        return
    options: dict[str, Any] = {"cluster": cluster, "workers": workers, "memory_limit": memory_limit}
    for line in run_demo(out, size=size, seed=seed, overwrite=overwrite, **options):
        typer.echo(line)
