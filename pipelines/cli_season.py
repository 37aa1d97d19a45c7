"""The command ``season``. What is heavy is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_options import (
    Cluster,
    Dashboard,
    Debug,
    DryRun,
    LogFormat,
    MemoryLimit,
    PerformanceReport,
    Workers,
    cluster_options,
    show,
)

if TYPE_CHECKING:
    from pipelines.season import SeasonResult

PARTIAL = 3
"""Exit code of a season of which scenes were left out."""


def season_command(
    recipe: Annotated[Path, typer.Argument(help="YAML: scenes, out, and what `map` takes; see docs/season.md.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the season, over the recipe's.")] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    dashboard: Dashboard = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take the season in the folder away first.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    performance_report: PerformanceReport = False,
    dry_run: DryRun = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Map the lakes of many dates over one grid and track them; run again after a kill or a change, it goes on.

    Exit code 3: some scenes were left out, and quarantine.json in the folder says why.
    """
    from pipelines.season_recipe import read_season_recipe

    values = locals()
    asked = read_season_recipe(recipe, out=out, report=False if no_report else None, **cluster_options(values))
    if dry_run:
        from pipelines.season import plan_season

        show(plan_season(asked))
        return
    from pipelines.season import map_season

    result = map_season(asked, overwrite=overwrite, progress=True)
    _tell(result)
    if result.left_out:
        raise typer.Exit(PARTIAL)


def _tell(result: SeasonResult) -> None:
    for note in result.catalogue["notes"]:
        typer.echo(note)
    mapped = [one.day for one in result.dates if not one.is_kept]
    typer.echo(f"{len(result.dates)} dates, {len(mapped)} of them mapped by this run: {', '.join(mapped) or 'none'}")
    typer.echo("{lakes} lakes of all dates, {tracks} tracks, {events} events".format(**result.catalogue))
    for name, told in result.predicted.items():
        if name in result.measured:
            typer.echo(f"{name}: predicted {told:,.10g}, measured {result.measured[name]:,.10g}")
    for one in result.left_out:
        passing = "may pass, it is tried again by the next run" if one.may_pass else "does not pass"
        typer.echo(f"left out: {one.date} {one.scene}: {one.reason} (the fault {passing})", err=True)
    page = ", report.html" if (result.out / "report.html").exists() else ""
    typer.echo(
        f"written to {result.out}: lakes, tracks, events, links, catalogue (.parquet), a run for each date{page}"
    )
