"""The command `nuat bench`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nuat.cli.options import (
    DataDir,
    Device,
    Imports,
    NoCudaGraphs,
    Threads,
    apply_common_options,
    check_output_file,
    parse_override,
    refuse_torchrun,
)
from nuat.cli.terminal import console, print_line
from nuat.runtime.text import escape_unprintable


def bench_command(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE...")],
    data: Annotated[str, typer.Option(help="See: nuat list data.")] = "digits",
    model: Annotated[str | None, typer.Option(help="Default: the first recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the first recipe's.")] = None,
    rounds: Annotated[int, typer.Option(help="Timings of each recipe, of two steps each.")] = 9,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value of every recipe, such as precision=bf16."),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    no_cuda_graphs: NoCudaGraphs = False,
    out: Annotated[Path, typer.Option(help="JSON file of the results.")] = Path("bench.json"),
    data_dir: DataDir = None,
    imports: Imports = None,
) -> None:
    """Time the training steps of recipes, relative to standard training in the same process."""
    refuse_torchrun("bench")
    apply_common_options(imports, data_dir)
    from nuat.data import load_dataset
    from nuat.profiling import benchmark
    from nuat.recipes import get_recipe
    from nuat.runtime.device import get_device
    from nuat.runtime.files import atomic_write
    from nuat.runtime.threads import configure_threads

    recipes = [get_recipe(name, data) for name in names]
    for assignment in overrides or []:
        recipes = [recipe.with_override(*parse_override(assignment)) for recipe in recipes]
    if model is not None:
        recipes = [replace(recipe, model=model) for recipe in recipes]
    if batch_size is not None:
        recipes = [replace(recipe, batch_size=batch_size) for recipe in recipes]
    check_output_file("--out", out)
    splits, torch_device = load_dataset(data), get_device(device)
    configure_threads(threads)
    results = benchmark(
        recipes,
        splits,
        torch_device,
        rounds=rounds,
        cuda_graphs=False if no_cuda_graphs else None,
        print_line=print_line,
    )
    console.print(_cost_table(results))
    console.print(_section_table(results))
    atomic_write(out, lambda file: file.write_text(json.dumps(results, indent=1) + "\n"))
    print_line(f"A matrix product runs at {results['matmul_gflops']:.0f} GFLOP/s here.")
    print_line(f"All results: {out}")


def _cost_table(results: dict[str, Any]) -> Table:
    title = "{model} on {data}, batches of {batch_size}, {device}, {precision}".format(**results)
    title = escape_unprintable(title)
    table = Table(title=title)
    table.add_column("recipe", no_wrap=True)
    headings = "forwards", "/ 3", "standard steps", "quartiles", "ms", "images/s"
    for heading in (*headings, "GFLOP/s", "of matmul", "peak MiB"):
        table.add_column(heading, justify="right", overflow="fold")
    for cost in results["costs"]:
        median, lower, upper = cost["relative_time"]
        table.add_row(
            cost["name"],
            f"{cost['forward_equivalents']:.2f}",
            f"{cost['forward_equivalents'] / 3:.2f}",
            f"{median:.2f}",
            f"{lower:.2f} to {upper:.2f}",
            f"{cost['ms']:.{1 if cost['ms'] < 100 else 0}f}",
            f"{cost['images_per_s']:.0f}",
            f"{cost['gflops']:.0f}",
            f"{cost['matmul_fraction']:.0%}",
            f"{cost['peak_mib']:.0f}",
        )
    return table


def _section_table(results: dict[str, Any]) -> Table:
    from nuat.profiling import SECTIONS

    table = Table("share of the time in", title="where the time of a step goes")
    for section in SECTIONS:
        table.add_column(section, justify="right")
    for cost in results["costs"]:
        table.add_row(
            cost["name"], *(f"{cost['time_shares'][section]:.1%}" for section in SECTIONS)
        )
    return table
