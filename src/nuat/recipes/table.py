"""The table of named rows. An outside row goes in through the same `register`."""

from __future__ import annotations

from nuat.errors import InputError, unknown
from nuat.notation import split
from nuat.recipes.recipe import Recipe

_table: dict[tuple[str, str], Recipe] = {}


def register(row: Recipe) -> Recipe:
    """Add a row. Raises InputError if there is one of this name for this data set."""
    if (row.name, row.data) in _table:
        raise InputError(f"there is already a recipe {row.name!r} for {row.data!r}")
    return _table.setdefault((row.name, row.data), row)


def recipes() -> list[Recipe]:
    """All rows, in the order in which they were registered."""
    return list(_table.values())


def recipe(name: str, data: str) -> Recipe:
    """The row of this name for this data set, whatever the latter's settings, or InputError."""
    data, _ = split(data)
    if (name, data) in _table:
        return _table[name, data]
    names = list(dict.fromkeys(name for name, _ in _table))
    if name not in names:
        raise unknown("recipe", name, names)
    there = [data for there_name, data in _table if there_name == name]
    raise unknown(f"data set for {name!r}", data, there)
