"""The table: in which columns the figures of runs stand, on a page and in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from nuat.report.naming import printable
from nuat.report.rows import Row, rows

__all__ = ["Column", "Row", "footnotes", "best", "columns", "common", "percent", "render", "rows"]

LONGEST = 40
"""Names of runs up to so many letters stay on one line; longer ones would push figures out."""

WORD = 20
"""Letters in a word that is not broken."""

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A column in text; `marked` are the places of the cells to emphasise."""

    heading: str
    unit: str
    cells: Sequence[str]
    number: bool = True
    marked: frozenset[int] = frozenset()

    @property
    def lines(self) -> list[str]:
        """The heading in short lines: `pgd-100`, `(restarts=5)`, `%`."""
        name, bracket, rest = self.heading.partition("(")
        parts = (*name.split(), bracket + rest, self.unit)
        return [printable(part) for part in parts if part]


def attacks(rows: Sequence[Row]) -> list[str]:
    """Every attack that a row has a figure for, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row.robust))


def best(rows: Sequence[Row]) -> frozenset[int]:
    """The places of the highest worst accuracies, each among at least two rows like it."""
    places = set()
    for place, row in enumerate(rows):
        rivals = [other.worst for other in rows if other.comparable == row.comparable]
        known = [worst for worst in rivals if worst is not None]
        if len(known) > 1 and row.worst == max(known):
            places.add(place)
    return frozenset(places)


def common(rows: Sequence[Row]) -> list[str]:
    """What is the same for every row and needs no column: data, model, ball, images."""
    settings = [{*map(read, rows)} for read in _SETTING.values()]
    same = [found.pop() for found in settings if len(found) == 1 and DASH not in found]
    images = {*_images(rows)} - {DASH}
    return same + (list(images) if len(images) == 1 else [])


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What the table does not show of runs, a line for each run with such a thing."""
    return [
        printable(f"{row.name}: also there, not shown: {'; '.join(row.left_out)}")
        for row in rows
        if row.left_out
    ]


_SETTING: dict[str, Callable[[Row], str]] = {
    "data": lambda row: row.data or DASH,
    "model": lambda row: row.model or DASH,
    "ball": lambda row: row.ball,
}


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns in which rows differ, and their figures; see `common` for the rest.

    Where a row has no scores, columns of validation figures are added for all of them.
    """
    marked = best(rows)
    built = [Column("run", "", [_name(row) for row in rows], number=False)]
    for heading, read in _SETTING.items():
        if len({*map(read, rows)}) > 1:
            built.append(Column(heading, "", [read(row) for row in rows], number=False))
    if len({*(images := _images(rows))} - {DASH}) > 1:
        built.append(Column("images", "", images, number=False))
    if any(row.clean is not None for row in rows):
        built.append(Column("clean", "%", [percent(row.clean) for row in rows]))
        for name in attacks(rows):
            built.append(Column(name, "%", [percent(row.robust.get(name)) for row in rows]))
        built.append(Column("worst", "%", [percent(row.worst) for row in rows], marked=marked))
    if any(row.clean is None for row in rows):
        built.append(Column("validation clean", "%", [percent(row.val_clean) for row in rows]))
        built.append(Column("validation robust", "%", [percent(row.val_robust) for row in rows]))
    if any(row.cost is not None for row in rows):
        built.append(Column("cost", "per step", [_decimal(row.cost) for row in rows]))
    if any(row.seconds is not None for row in rows):
        built.append(Column("training", "s", [_decimal(row.seconds) for row in rows]))
    return built


def _name(row: Row) -> str:
    return f"{row.name}, {row.unfinished}" if row.unfinished else row.name


def percent(share: float | None) -> str:
    """0.7125 -> 71.2; a dash for None."""
    return DASH if share is None else f"{100 * share:.1f}"


def _decimal(value: float | None) -> str:
    return DASH if value is None else f"{value:,.1f}"


def _images(rows: Sequence[Row]) -> list[str]:
    """How many, of which split; as many others are called that."""
    first: dict[str, Row] = {}
    texts = []
    for row in rows:
        split = f" ({row.split})" if row.split else ""
        text = f"{row.images:,} images{split}" if row.images else DASH
        others = first.setdefault(text, row).places != row.places
        texts.append(text.replace(" images", " other images") if others else text)
    return texts


def _least(column: Column) -> int:
    """The width below which a figure or a word of usual length would be broken."""
    words = [word for text in (*column.lines, *column.cells) for word in text.split()]
    usual = max((len(word) for word in words if len(word) <= WORD), default=1)
    return max(usual, *map(len, column.cells)) if column.number else usual


def render(rows: Sequence[Row], built: Sequence[Column] | None = None) -> Table:
    """The table for a terminal: what all rows share stands below it.

    A figure is never broken, nor a word of usual length; where that needs more room than there is,
    lines are longer (print it with crop=False).
    """
    caption = Text(" \N{MIDDLE DOT} ".join(common(rows)))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, caption=caption)
    built = columns(rows) if built is None else built
    for column in built:
        table.add_column(
            Text("\n".join(column.lines)),
            justify="right" if column.number else "left",
            vertical="bottom",
            overflow="fold",
            min_width=_least(column),
            no_wrap=column.heading in ("run", "images")
            and max(map(len, column.cells), default=0) <= LONGEST,
        )
    for place in range(len(built[0].cells)):
        cells = [
            Text(column.cells[place], style="bold" if place in column.marked else "")
            for column in built
        ]
        table.add_row(*cells)
    return table
