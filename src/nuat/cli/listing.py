"""nuat list."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from nuat.attacks import attacks
from nuat.cli.options import Use, load_own
from nuat.cli.terminal import console
from nuat.data import datasets
from nuat.errors import unknown
from nuat.models import models
from nuat.recipes import recipes


class Kind(StrEnum):
    """What can be listed."""

    recipes = "recipes"
    attacks = "attacks"
    models = "models"
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
        if data is not None and data not in {row.data for row in recipes()}:
            raise unknown("data set", data, {row.data for row in recipes()})
        for row in recipes():
            if data in (None, row.data):
                cells = (row.name, row.data, row.model, str(row.epochs), row.source)
                shown.add_row(*cells, row.note)
    else:
        shown.add_column(kind.value, no_wrap=True)
        shown.add_column("")
        for name, entry in {"attacks": attacks, "models": models, "data": datasets}[kind].items():
            shown.add_row(name, (entry.__doc__ or "").strip().split("\n")[0])
    console.print(shown)
