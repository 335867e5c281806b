"""nuat reproduce, nuat report: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from nuat.checkpoints import load_model
from nuat.cli.options import Attacks, DataDir, Device, Threads, Use, load_own
from nuat.cli.terminal import console, say, warn
from nuat.data import set_data_dir
from nuat.errors import InputError, unknown_name
from nuat.evaluation import ATTACKS
from nuat.recipes import list_recipes
from nuat.report import (
    Shown,
    VerdictFolder,
    aggregate_seeds,
    footnotes,
    opened,
    render,
    repeated,
    rows,
    write_page,
)
from nuat.reproduce import reproduce as run_rows


def reproduce(
    data: Annotated[str, typer.Argument(help="The data set whose rows to run.")],
    only: Annotated[
        str | None, typer.Option("--rows", help="Such as normal,pgd-at,nuat-wa; by default all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/DATA.")] = None,
    seeds: int = 1,
    attack: Attacks = None,
    epochs: Annotated[int | None, typer.Option(help="Stretches every schedule to fit.")] = None,
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    use: Use = None,
) -> None:
    """Train and attack the rows of a table; show them side by side. Goes on where it was."""
    load_own(use)
    set_data_dir(data_dir)
    every = [row.name for row in list_recipes() if row.data == data]
    if not every:
        raise unknown_name("data set with recipes", data, {row.data for row in list_recipes()})
    names = [name.strip() for name in only.split(",")] if only else every
    target = out or Path("runs") / data
    runs = run_rows(
        data,
        names,
        target,
        seeds=seeds,
        attacks=attack or ATTACKS,
        epochs=epochs,
        device=device,
        threads=threads,
    )
    show(runs)
    say(f"the page: {target / 'report.html'}")


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN_OR_VERDICTS...")],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default report.html in the first folder.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For weights that do not say, or are of your own network.")
    ] = None,
    data_dir: DataDir = None,
    use: Use = None,
) -> None:
    """Show runs and evaluations side by side, as a table and as one self-contained page.

    Next to runs it takes folders that `nuat evaluate --out` wrote.
    """
    load_own(use)
    set_data_dir(data_dir)
    # `runs/*` also names the page that `nuat reproduce` wrote beside its runs
    runs = [opened(folder) for folder in _without_pages(folders)]
    networks = _networks(runs, model)
    show(runs, networks)
    target = out or runs[0].path / "report.html"
    say(f"the page: {write_page(runs, target, networks=networks, note=warn)}")


def _without_pages(folders: list[Path]) -> list[Path]:
    """The folders without pages of earlier reports among them; one alone stays, to be refused."""
    kept = [each for each in folders if not (each.name == "report.html" and each.is_file())]
    return kept or folders


def show(runs: Sequence[Shown], networks: dict[Path, nn.Module] | None = None) -> None:
    """The table of the runs; where they are repeated over seeds, also the one over seeds."""
    shown = rows(runs, networks)
    console.print(render(shown), crop=False)
    if repeated(shown):
        console.print(render(shown, aggregate_seeds(shown)), crop=False)
    for line in footnotes(shown):
        say(line)


def _networks(runs: Sequence[Shown], model: str | None) -> dict[Path, nn.Module]:
    """The networks of the runs, but for those that cannot be built here, which is said.

    Those that the files alone do not give are built as `model`, if it is named.
    """
    networks, needed = {}, False
    for run in runs:
        if isinstance(run, VerdictFolder):
            continue
        try:
            networks[run.path] = load_model(run.path).model
        except InputError as error:
            if model is None or not run.has_weights:
                warn(f"{run.path} is shown without images: {error}")
                continue
            networks[run.path], needed = load_model(run.path, model).model, True
    if model is not None and not needed:
        say(f"--model {model} was not needed")
    return networks
