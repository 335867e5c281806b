"""The command `nuat reproduce`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nuat.cli.options import (
    DataDir,
    Device,
    Imports,
    MaxTime,
    Overrides,
    SearchPrecision,
    Threads,
    apply_common_options,
    parse_override,
    parse_seconds,
    refuse_torchrun,
)
from nuat.cli.report import print_table
from nuat.cli.terminal import print_line

TABLE_HELP = (
    "cifar10-resnet18, cifar10-wrn, mnist or imagenet100, which are published, or a data set "
    "with recipes of ours, such as digits."
)
ATTACK_HELP = (
    "Such as gama-100; repeatable. Default: those of the published table; without one, pgd-20, "
    "pgd-100(restarts=5) and gama-100."
)


def reproduce_command(
    table: Annotated[str, typer.Argument(help=TABLE_HELP)],
    rows: Annotated[
        str | None,
        typer.Option("--rows", help="Such as normal,pgd-at,nuat-wa; default: the published rows."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The data set made smaller, such as 'mnist(train=6000)'.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: runs/TABLE.")] = None,
    seeds: Annotated[int, typer.Option(help="Train each recipe with the seeds 0, 1, ...")] = 1,
    attack: Annotated[list[str] | None, typer.Option("--attack", help=ATTACK_HELP)] = None,
    samples: Annotated[
        int | None, typer.Option(help="Number of test images, balanced over the classes.")
    ] = None,
    epochs_scale: Annotated[
        float, typer.Option(help="Factor of the epochs and schedules of every recipe.")
    ] = 1,
    overrides: Overrides = None,
    search_precision: SearchPrecision = "fp32",
    device: Device = None,
    max_time: MaxTime = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    imports: Imports = None,
) -> None:
    """Train and attack the rows of a table, and compare them with the published figures.

    Run the same command again to resume; finished work is kept.
    """
    refuse_torchrun("reproduce")
    apply_common_options(imports, data_dir)
    from nuat.reproduce import reproduce

    folder = out or Path("runs") / table
    runs = reproduce(
        table,
        folder,
        rows=None if rows is None else [name.strip() for name in rows.split(",")],
        data=data,
        seeds=seeds,
        attacks=attack,
        samples=samples,
        epochs_scale=epochs_scale,
        overrides=dict(parse_override(assignment) for assignment in overrides or []),
        search_precision=search_precision,  # type: ignore[arg-type]  # evaluate checks the value
        max_time=parse_seconds(max_time),
        device=device,
        threads=threads,
        command=shlex.join(["nuat", *sys.argv[1:]]),
    )
    print_table(runs)
    print_line(f"table: {folder / 'table.md'}")
    print_line(f"report: {folder / 'report.html'}")
