"""The command `nuat reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nuat.cli.options import (
    Attacks,
    DataDir,
    Device,
    Epochs,
    Imports,
    Threads,
    apply_common_options,
    refuse_torchrun,
)
from nuat.cli.report import print_table
from nuat.cli.terminal import print_line
from nuat.errors import unknown_name


def reproduce_command(
    data: Annotated[str, typer.Argument(help="The data set whose recipes to run.")],
    rows: Annotated[
        str | None,
        typer.Option("--rows", help="Recipes, such as normal,pgd-at,nuat-wa; default: all."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: runs/DATA.")] = None,
    seeds: Annotated[int, typer.Option(help="Train each recipe with the seeds 0, 1, ...")] = 1,
    attack: Attacks = None,
    epochs: Epochs = None,
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    imports: Imports = None,
) -> None:
    """Train and attack the recipes of a data set and print one table. Finished work is kept."""
    refuse_torchrun("reproduce")
    apply_common_options(imports, data_dir)
    from nuat.evaluation import DEFAULT_ATTACKS
    from nuat.recipes import list_recipes
    from nuat.reproduce import reproduce

    names = [recipe.name for recipe in list_recipes() if recipe.data == data]
    if not names:
        raise unknown_name(
            "data set with recipes", data, {recipe.data for recipe in list_recipes()}
        )
    if rows is not None:
        names = [name.strip() for name in rows.split(",")]
    folder = out or Path("runs") / data
    runs = reproduce(
        data,
        names,
        folder,
        seeds=seeds,
        attacks=attack or DEFAULT_ATTACKS,
        epochs=epochs,
        device=device,
        threads=threads,
    )
    print_table(runs)
    print_line(f"report: {folder / 'report.html'}")
