"""The command line: nuat train, evaluate, reproduce, report, bench, export, list, download."""

from __future__ import annotations

import sys
import warnings

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
from nuat.errors import InputError, NonFinite

app = typer.Typer(
    help=(nuat.__doc__ or "").removeprefix("nuat: "),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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


def main() -> None:
    """Run the command line; what a user got wrong is one line and exit status 2."""
    warnings.showwarning = terminal.warn
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (InputError, NonFinite, OSError) as error:
        terminal.error(str(error))
        sys.exit(1 if isinstance(error, NonFinite) else 2)
    except UsageError as error:
        terminal.error(error.format_message())  # type: ignore[attr-defined]
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        terminal.error("stopped; the same command goes on from the last checkpoint")
        sys.exit(130)
