"""The command line: nuat train, evaluate, reproduce, report, bench, export, list, download."""

from __future__ import annotations

import sys
import warnings
from dataclasses import fields
from typing import Annotated

import typer

import nuat
from nuat.cli import terminal
from nuat.cli.bench import bench
from nuat.cli.download import download
from nuat.cli.evaluate import evaluate
from nuat.cli.export import export
from nuat.cli.listing import list_names
from nuat.cli.tables import report, reproduce
from nuat.cli.train import train
from nuat.errors import InputError, NonFiniteError
from nuat.recipes import list_recipes

app = typer.Typer(
    help=(nuat.__doc__ or "").removeprefix("nuat: "),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        terminal.say(f"nuat {nuat.__version__}")
        raise typer.Exit


@app.callback()
def shared(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say the version."),
    ] = False,
) -> None:
    """What stands before the name of a command."""


app.command()(train)
app.command()(evaluate)
app.command()(reproduce)
app.command()(report)
app.command()(bench)
app.command()(export)
app.command("list")(list_names)
app.command()(download)

UsageError = typer.BadParameter.__mro__[1]
"""What the parser raises for a command line it cannot read."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, which the parser turns into this number by itself."""


def _said(error: Exception) -> str:
    """What the parser says, as one line; of an option that is a field of recipes, how to set it."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    option = (getattr(error, "option_name", None) or "").lstrip("-").replace("-", "_")
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    if command not in ("train", "bench") or option not in _fields():
        return message
    return f"{message.partition(' (')[0]}: it is a field of the recipe, --set {option}=VALUE"


def _fields() -> set[str]:
    """What `--set` can set: the fields of recipes and of their methods."""
    rows = list_recipes()
    return {field.name for row in rows for part in (row, row.method) for field in fields(part)}


def main() -> None:
    """Run the command line; what a user got wrong is one line and exit status 2."""
    warnings.showwarning = terminal.warn
    try:
        status = app(standalone_mode=False) or 0
    except (InputError, NonFiniteError, OSError) as error:
        terminal.error(str(error))
        sys.exit(1 if isinstance(error, NonFiniteError) else 2)
    except UsageError as error:
        if message := _said(error):
            terminal.error(message)  # a bare `nuat` has shown its help instead
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    if status == INTERRUPTED:
        terminal.error("stopped; the same command goes on from what was written down last")
    sys.exit(status)
