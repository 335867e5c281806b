"""nuat list."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from nuat.attacks import attack_registry
from nuat.cli.options import Use, load_own
from nuat.cli.terminal import console
from nuat.data import dataset_registry
from nuat.errors import unknown_name
from nuat.models import model_registry
from nuat.recipes import list_recipes


class Kind(StrEnum):
    """What can be listed."""

    list_recipes = "recipes"
    attack_registry = "attacks"
    model_registry = "models"
    data = "data"


def list_names(
    kind: Kind,
    data: Annotated[str | None, typer.Option(help="Only recipes for this data set.")] = None,
    use: Use = None,
) -> None:
    """What there is to name: recipes, attacks, models, data."""
    load_own(use)
    shown = Table(box=None, pad_edge=False)
    if kind is Kind.recipes:
        for heading in ("recipe", "data", "model", "epochs", "source"):
            shown.add_column(heading, no_wrap=True)
        shown.add_column("note", overflow="fold", ratio=1)
        if data is not None and data not in {row.data for row in list_recipes()}:
            raise unknown_name("data set", data, {row.data for row in list_recipes()})
        for row in list_recipes():
            if data in (None, row.data):
                cells = (row.name, row.data, row.model, str(row.epochs), row.source)
                shown.add_row(*cells, row.note)
    else:
        shown.add_column(kind.value, no_wrap=True)
        shown.add_column("")
        for name, entry in {
            "attacks": attack_registry,
            "models": model_registry,
            "data": dataset_registry,
        }[kind].items():
            shown.add_row(name, (entry.__doc__ or "").strip().split("\n")[0])
    console.print(shown)
