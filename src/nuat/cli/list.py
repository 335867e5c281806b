"""The command `nuat list`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from nuat.cli.options import Imports, apply_common_options
from nuat.cli.terminal import console
from nuat.errors import unknown_name


class Kind(StrEnum):
    """What can be listed."""

    recipes = "recipes"
    attacks = "attacks"
    models = "models"
    data = "data"


def list_command(
    kind: Kind,
    data: Annotated[str | None, typer.Option(help="Only recipes for this data set.")] = None,
    imports: Imports = None,
) -> None:
    """List the names of recipes, attacks, models or data sets."""
    apply_common_options(imports)
    console.print(_recipe_table(data) if kind is Kind.recipes else _registry_table(kind))


def _recipe_table(data: str | None) -> Table:
    from nuat.recipes import list_recipes

    recipes = list_recipes()
    if data is not None and data not in {recipe.data for recipe in recipes}:
        raise unknown_name("data set", data, {recipe.data for recipe in recipes})
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "data", "model", "epochs", "source"):
        table.add_column(heading, no_wrap=True)
    table.add_column("note", overflow="fold", ratio=1)
    for recipe in recipes:
        if data in (None, recipe.data):
            cells = recipe.name, recipe.data, recipe.model, str(recipe.epochs), recipe.source
            table.add_row(*cells, recipe.note)
    return table


def _registry_table(kind: Kind) -> Table:
    """Each name with the first line of its docstring."""
    from nuat.attacks import attack_registry
    from nuat.data import dataset_registry
    from nuat.models import model_registry

    registries: dict[Kind, Mapping[str, Any]] = {
        Kind.attacks: attack_registry,
        Kind.models: model_registry,
        Kind.data: dataset_registry,
    }
    table = Table(box=None, pad_edge=False)
    table.add_column(kind.value, no_wrap=True)
    table.add_column("")
    for name, entry in registries[kind].items():
        table.add_row(name, (entry.__doc__ or "").strip().split("\n")[0])
    return table
