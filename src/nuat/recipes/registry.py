"""The table of named rows. An outside row goes in through the same `register`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from nuat.config.parsing import parse_call
from nuat.data import Augment, is_dataset_name
from nuat.errors import InputError, unknown_name
from nuat.recipes.recipe import Recipe

_table: dict[tuple[str, str], Recipe] = {}


def register_recipe(row: Recipe) -> Recipe:
    """Add a row. Raises InputError if there is one of this name for this data set."""
    if (row.name, row.data) in _table:
        raise InputError(f"there is already a recipe {row.name!r} for {row.data!r}")
    return _table.setdefault((row.name, row.data), row)


def list_recipes() -> list[Recipe]:
    """All rows, in the order in which they were registered."""
    return list(_table.values())


def get_recipe(name: str, data: str, own: bool = False) -> Recipe:
    """The row of this name for this data set, whatever the latter's settings, or InputError.

    A data set that has no row of its own, such as `folder:PATH`, gets a row of CIFAR-10, or for
    files of 128 pixels or more of ImageNet-100, with a warning that says so. With `own` it need
    not have a name that `load` knows.
    """
    text = data
    data, _ = parse_call(data)
    if (name, data) in _table:
        return _table[name, data]
    rowless = not any(data == of for _, of in _table) and (own or is_dataset_name(text))
    if rowless and (lent := _lent(name, text)):
        return lent
    names = list(dict.fromkeys(name for name, _ in _table))
    if name not in names:
        raise unknown_name("recipe", name, names)
    there = [data for there_name, data in _table if there_name == name]
    if Path(data).exists():
        kind = "npz" if data.endswith(".npz") else "folder"
        raise InputError(f"{data!r} is no data set by name; for your own files, {kind}:{data}")
    raise unknown_name(f"data set for {name!r}", data, there)


SMALL = Augment(flip=True, scale=(0.25, 1.0))
"""Crops of files below 128 pixels: ours; not as small a part as the ImageNet recipes take."""


def _lent(name: str, text: str) -> Recipe | None:
    """A row of another data set for one that has none; None if that has none of this name."""
    data, settings = parse_call(text)
    files = data.startswith("folder:")
    large = files and settings.get("size", 224) >= 128
    row = _table.get((name, "imagenet100" if large else "cifar10"))
    if row is None:
        return None
    warnings.warn(
        f"no recipe {name!r} of its own for {data}: that for {row.data} is taken (model "
        f"{row.model}, {row.epochs} epochs, {row.ball}); change it with --model, --epochs, --eps",
        stacklevel=3,
    )
    lent = replace(
        row, data=text, note=f"{row.note}; lent by {row.data}".strip("; "), source="ours"
    )
    return replace(lent, augment=SMALL) if files and not large else lent
