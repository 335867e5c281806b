"""The application: its commands, and how errors become one line and an exit status."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Annotated

import typer

import nuat
from nuat.cli.bench import bench_command
from nuat.cli.diagnose import diagnose_command
from nuat.cli.doctor import doctor_command
from nuat.cli.download import download_command
from nuat.cli.evaluate import evaluate_command
from nuat.cli.export import export_command
from nuat.cli.figures import figures_command
from nuat.cli.list import list_command
from nuat.cli.report import report_command
from nuat.cli.reproduce import reproduce_command
from nuat.cli.terminal import print_error, print_line, print_warning
from nuat.cli.train import train_command
from nuat.errors import InputError, NonFiniteError
from nuat.runtime.signals import OUT_OF_TIME, Stopped, stop_at_once

# typer raises click's exceptions: from version 0.24 on those of the copy of click that it contains
try:
    from typer._click.exceptions import UsageError
except ImportError:
    from click import UsageError  # type: ignore[assignment]  # the same class by its older name

INTERRUPTED = 130
"""The exit status after Ctrl-C; typer returns it instead of raising KeyboardInterrupt."""

app = typer.Typer(
    help=(nuat.__doc__ or "").partition("\n")[0].removeprefix("nuat: ").capitalize(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "train": (train_command, "nuat train nuat-wa --epochs 5 --out runs/mine"),
    "evaluate": (evaluate_command, "nuat evaluate runs/mine --attack autoattack --samples 100"),
    "diagnose": (diagnose_command, "nuat diagnose runs/mine --transfer-from runs/other"),
    "reproduce": (reproduce_command, "nuat reproduce mnist --rows fbf,nuat-wa --max-time 2h"),
    "report": (report_command, "nuat report runs/*"),
    "figures": (figures_command, "nuat figures runs/mine"),
    "bench": (bench_command, "nuat bench fbf nuat pgd-at"),
    "export": (export_command, "nuat export runs/mine --out exported --license mit"),
    "list": (list_command, "nuat list recipes --data mnist"),
    "download": (download_command, "nuat download mnist"),
    "doctor": (doctor_command, "nuat doctor"),
}
"""The commands by name, each with an example for its help."""

for _name, (_command, _example) in COMMANDS.items():
    app.command(_name, epilog=f"Example: {_example}")(_command)


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"nuat {nuat.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line.

    An error of the user is printed as one line. The exit status is 2 for it, 1 for a loss that is
    not finite and for a diagnosis that fails, 75 after --max-time, 128 plus the number of the
    signal that has ended the command, so 130 after Ctrl-C.
    """
    warnings.showwarning = lambda message, *_: print_warning(str(message))
    try:
        _check_empty_options(sys.argv[1:])
        with stop_at_once():
            status = app(standalone_mode=False) or 0
    except (InputError, NonFiniteError) as error:
        print_error(str(error))
        sys.exit(1 if isinstance(error, NonFiniteError) else 2)
    except OSError as error:
        named = error.strerror and error.filename
        print_error(f"{error.filename}: {error.strerror}" if named else str(error))
        sys.exit(2)
    except MemoryError as error:
        print_error(f"there is not enough memory: {error}".removesuffix(": "))
        sys.exit(2)
    except Stopped as stopped:
        print_error(str(stopped))
        # torchrun takes any other status than 0 for a failure, and would start the ranks again
        sys.exit(0 if stopped.status == OUT_OF_TIME and _is_under_torchrun() else stopped.status)
    except UsageError as error:
        # the message is empty after `nuat` without arguments, which has printed the help
        if message := _usage_message(error):
            print_error(message)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    if status == INTERRUPTED:
        print_error("interrupted; run the same command again to resume from the last saved state")
    sys.exit(status)


def _is_under_torchrun() -> bool:
    from nuat.runtime.ranks import world_size

    return world_size() > 1


def _check_empty_options(words: list[str]) -> None:
    """Raise InputError for `--out ''`, which a path would take for the working directory."""
    for word, value in pairwise([*words, "end"]):
        option, equals, after_equals = word.partition("=")
        if option.startswith("--") and not (after_equals if equals else value):
            raise InputError(f"{option} is '': give it a value, or leave it out")


def _usage_message(error: UsageError) -> str:
    """The parser's message as one line; for a field of recipes given as an option, the fix."""
    message = " ".join(error.format_message().split())
    option = (getattr(error, "option_name", None) or "").lstrip("-").replace("-", "_")
    command = error.ctx.info_name if error.ctx else None
    if command not in ("train", "bench") or option not in _recipe_fields():
        return message
    return f"{message.partition(' (')[0]}: it is a field of the recipe, --set {option}=VALUE"


def _recipe_fields() -> set[str]:
    """The names that `--set` accepts: fields of recipes and of their methods."""
    from nuat.recipes import list_recipes

    recipes = list_recipes()
    return {field.name for row in recipes for part in (row, row.method) for field in fields(part)}
