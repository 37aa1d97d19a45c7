"""The command ``lakescale``. Everything heavy is imported where it is used, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import signal
import sys
import time
from typing import Annotated

import typer

from lakescale import __version__
from lakescale.logs import EVENT, is_json
from lakescale.schema import LakescaleError, without_secrets
from pipelines.cli_info import info_command
from pipelines.cli_map import map_command
from pipelines.cli_options import JSON, Debug, LogFormat, log_as_text
from pipelines.cli_rasters import ingest_command, sinks_command
from pipelines.cli_season import season_command
from pipelines.cli_tools import cluster_command, demo_command, model_app, report_command, score_command
from pipelines.cli_training import samples_command, train_command

app = typer.Typer(
    name="lakescale",
    help="Map the lakes that melt makes on ice sheets.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LOG = logging.getLogger("lakescale")


def main() -> None:
    """Run the command: exit code 0, 2 for bad input, 1 for a failed run; a traceback only with ``--debug``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # batch schedulers end runs so; let them be written off
    start, code = time.perf_counter(), 1
    try:
        code = _run()
    finally:
        if is_json():
            told = {EVENT: "ended", "exit_code": code, "seconds": round(time.perf_counter() - start, 3)}
            _LOG.info("ended with exit code %d", code, extra={EVENT: told})
    sys.exit(code)


def _run() -> int:
    try:
        app(prog_name="lakescale")  # also as `python -m lakescale`
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except LakescaleError as error:
        return _give_up(str(error), error.exit_code, what=error.what, item=error.item, mend=error.mend)
    except KeyboardInterrupt:
        return _give_up("interrupted", 130)
    except Exception as error:  # noqa: BLE001  (the last resort of a command)
        what = without_secrets(f"{type(error).__name__}: {error}")
        return _give_up(f"this should not have happened: {what}. Run it again with --debug, and report it", 1)
    return 0


def _give_up(message: str, code: int, **facts: str) -> int:
    if "--debug" in sys.argv:
        raise  # noqa: PLE0704  (called from an except clause)
    if is_json():
        _LOG.error("%s", message, extra={EVENT: {EVENT: "error", **facts}})
    else:
        typer.echo(f"lakescale: {message}", err=True)
    return code


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lakescale {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Map the lakes that melt makes on ice sheets."""
    _ = version
    if log_format != JSON:
        log_as_text(show_all=debug)


app.command("map")(map_command)
app.command("ingest")(ingest_command)
app.command("sinks")(sinks_command)
app.command("season")(season_command)
app.command("samples")(samples_command)
app.command("train")(train_command)
app.add_typer(model_app, name="model")
app.command("score")(score_command)
app.command("report")(report_command)
app.command("info")(info_command)
app.command("demo")(demo_command)
app.command("cluster")(cluster_command)
