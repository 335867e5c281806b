"""nuat bench."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nuat.cli.options import DataDir, Device, Threads, Use, load_own
from nuat.cli.terminal import console, say
from nuat.cli.train import setting
from nuat.data import load_dataset, set_data_dir
from nuat.errors import InputError
from nuat.profiling import SECTIONS
from nuat.profiling import benchmark as timed
from nuat.recipes import get_recipe
from nuat.runtime.device import get_device
from nuat.runtime.files import atomic_write
from nuat.runtime.threads import configure_threads


def bench(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE...")],
    data: Annotated[str, typer.Option(help="See: nuat list data.")] = "digits",
    model: Annotated[str | None, typer.Option(help="By default the first recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="By default the first recipe's.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each is timed, two steps a time.")] = 9,
    set: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of every recipe: precision=bf16.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    graphs: Annotated[bool, typer.Option("--graphs", help="Recorded steps; a GPU only.")] = False,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = Path("bench.json"),
    data_dir: DataDir = None,
    use: Use = None,
) -> None:
    """Time training steps: each recipe against standard training, in this very process."""
    load_own(use)
    set_data_dir(data_dir)
    rows = [get_recipe(name, data) for name in names]
    for assignment in set or []:
        rows = [setting(row, assignment) for row in rows]
    changes = {"model": model, "batch_size": batch_size}
    changes = {name: value for name, value in changes.items() if value is not None}
    rows = [replace(row, **changes) for row in rows]
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise InputError(
            f"--out {out} is a folder; the results are a file, such as {out}/bench.json"
        )
    splits, where = load_dataset(data), get_device(device)
    configure_threads(threads)
    found = timed(rows, splits, where, rounds=rounds, graphs=graphs, say=say)
    console.print(_costs(found))
    console.print(_shares(found))
    atomic_write(out, lambda file: file.write_text(json.dumps(found, indent=1) + "\n"))
    say(f"a product of matrices beside it: {found['matmul_gflops']:.0f} GFLOP/s; all of it: {out}")


def _costs(found: dict[str, Any]) -> Table:
    title = "{model} on {data}, batches of {batch_size}, {device}, {precision}".format(**found)
    shown = Table(title=title)
    shown.add_column("recipe", no_wrap=True)
    headings = "forwards", "/ 3", "standard steps", "quartiles", "ms", "images/s"
    for heading in (*headings, "GFLOP/s", "of matmul", "peak MiB"):
        shown.add_column(heading, justify="right", overflow="fold")
    for cost in found["costs"]:
        middle, low, high = cost["standard_steps"]
        shown.add_row(
            cost["name"],
            f"{cost['forward_equivalents']:.2f}",
            f"{cost['forward_equivalents'] / 3:.2f}",
            f"{middle:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{cost['ms']:.{1 if cost['ms'] < 100 else 0}f}",
            f"{cost['images_per_s']:.0f}",
            f"{cost['gflops']:.0f}",
            f"{cost['of_matmul']:.0%}",
            f"{cost['peak_mib']:.0f}",
        )
    return shown


def _shares(found: dict[str, Any]) -> Table:
    shown = Table("share of the time in", title="where the time of a step goes")
    for section in SECTIONS:
        shown.add_column(section, justify="right")
    for cost in found["costs"]:
        shown.add_row(cost["name"], *(f"{cost['shares'][section]:.1%}" for section in SECTIONS))
    return shown
