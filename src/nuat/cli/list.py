"""The command `nuat list`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from nuat.cli.options import Imports, apply_common_options
from nuat.cli.terminal import console, print_line
from nuat.errors import unknown_name

NOTE_INDENT = 4


Kind = Literal["recipes", "attacks", "models", "data", "pretrained"]


def list_command(
    kind: Kind,
    data: Annotated[str | None, typer.Option(help="Only recipes for this data set.")] = None,
    imports: Imports = None,
) -> None:
    """List the names of recipes, attacks, models, data sets or pretrained models."""
    apply_common_options(imports)
    if kind == "recipes":
        _print_recipes(data)
    elif kind == "pretrained":
        _print_pretrained()
    else:
        console.print(_registry_table(kind))


def _print_recipes(data: str | None) -> None:
    """One line for each recipe; its note is wrapped below it."""
    from nuat.recipes import list_recipes

    recipes = list_recipes()
    if data is not None and data not in {recipe.data for recipe in recipes}:
        raise unknown_name("data set", data, {recipe.data for recipe in recipes})
    recipes = [recipe for recipe in recipes if data in (None, recipe.data)]
    rows = [("recipe", "data", "model", "epochs", "source")]
    rows += [(r.name, r.data, r.model, str(r.epochs), r.source) for r in recipes]
    _print_columns(rows, ["", *(recipe.note for recipe in recipes)])


def _print_pretrained() -> None:
    """A line for each model that comes with nuat: threat model, accuracies in percent, license."""
    from nuat.checkpoints.pretrained import list_pretrained

    models = list_pretrained()
    attacks = list(dict.fromkeys(name for model in models.values() for name in model.accuracy))
    rows = [["name", "ball", "images", *attacks, "license"]]
    for name, model in models.items():
        accuracies = [model.accuracy.get(attack) for attack in attacks]
        cells = ["" if value is None else f"{value:.1f}" for value in accuracies]
        rows.append([name, model.ball, f"{model.images:,}", *cells, model.license])
    _print_columns(rows)


def _print_columns(rows: Sequence[Sequence[str]], below: Sequence[str] = ()) -> None:
    """Print rows in columns that are never cut, each with its text of `below` wrapped below it."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, note in zip(rows, below or [""] * len(rows), strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())
        for line in textwrap.wrap(note, console.width - NOTE_INDENT):
            print_line(" " * NOTE_INDENT + line)


def _registry_table(kind: Kind) -> Table:
    """Each name with the first line of its docstring."""
    from nuat.attacks import attack_registry
    from nuat.data import dataset_registry
    from nuat.models import model_registry

    registries: dict[str, Mapping[str, Any]] = {
        "attacks": attack_registry,
        "models": model_registry,
        "data": dataset_registry,
    }
    table = Table(box=None, pad_edge=False)
    table.add_column(kind, no_wrap=True)
    table.add_column("")
    for name, entry in registries[kind].items():
        table.add_row(name, (entry.__doc__ or "").strip().split("\n")[0])
    return table
