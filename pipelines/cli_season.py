"""The command ``season``. What is heavy is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_tools import Debug  # noqa: TC001  (typer reads it)

if TYPE_CHECKING:
    from pipelines.season import SeasonResult

PARTIAL = 3
"""Exit code of a season of which scenes were left out."""


def season_command(
    recipe: Annotated[Path, typer.Argument(help="YAML: scenes, out, and what `map` takes; see docs/season.md.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the season, over the recipe's.")] = None,
    cluster: Annotated[str | None, typer.Option(help="local, threads, or a scheduler's address [local].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers [one a core].")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")] = None,
    dashboard: Annotated[str | None, typer.Option(help="Address of the dashboard [127.0.0.1:0]; none for off.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take the season in the folder away first.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Map the lakes of many dates over one grid and track them; run again after a kill or a change, it goes on.

    Exit code 3: some scenes were left out, and quarantine.json in the folder says why.
    """
    from pipelines.season_recipe import read_season_recipe

    _ = debug
    of_cluster = {"kind": cluster, "workers": workers, "memory_limit": memory_limit, "dashboard": dashboard}
    nested = {f"cluster__{name}": value for name, value in of_cluster.items()}
    asked = read_season_recipe(recipe, out=out, report=False if no_report else None, **nested)
    if dry_run:
        from pipelines.season import plan_season

        for name, value in plan_season(asked).items():
            typer.echo(f"{name}: {value}")
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
