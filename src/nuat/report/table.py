"""The columns of the table, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from nuat.attacks.quick import QUICK_ATTACKS, UPPER_BOUND
from nuat.report.rows import Row
from nuat.runtime.text import escape_unprintable

MAX_NAME = 40
"""Names of up to this many characters stay on one line."""

MAX_WORD = 20
"""Words of up to this many characters are not broken."""

DASH = "\N{EN DASH}"

EXPLANATIONS = {
    "run": "The recipe or folder, with what tells it from others of the same name.",
    "seeds": "The number of runs that differ in their seed alone.",
    "data": "The data set.",
    "model": "The network.",
    "ball": "The threat model: the norm and the radius of the perturbations, in pixel units.",
    "images": "The images that were attacked, and their split.",
    "clean": "Percentage of the images that are classified correctly without an attack.",
    "worst": "Percentage of the images that withstand every attack of the row: robust accuracy.",
    "validation clean": "Clean accuracy on the validation split after the last epoch; no result.",
    "validation robust": "Robust accuracy on the validation split after the last epoch; no result.",
    "cost": "Cost of a training step, in forward passes of the batch; standard training takes 3.",
    "training": "Seconds of training, without validation.",
}
"""What the columns show; the other columns are attacks."""

_SETTINGS: dict[str, Callable[[Row], str]] = {
    "data": lambda row: row.data or DASH,
    "model": lambda row: row.model or DASH,
    "ball": lambda row: row.ball,
}


@dataclass(frozen=True)
class Column:
    """A column as text; `marked` holds the indices of the cells to emphasize."""

    heading: str
    unit: str
    cells: Sequence[str]
    number: bool = True
    marked: frozenset[int] = frozenset()

    @property
    def explanation(self) -> str:
        """What the column shows, as a sentence."""
        if self.heading in EXPLANATIONS:
            return EXPLANATIONS[self.heading]
        return escape_unprintable(
            f"Percentage of the images that are classified correctly and withstand {self.heading}."
        )

    @property
    def lines(self) -> list[str]:
        """The heading in short lines: `pgd-100`, `(restarts=5)`, `%`."""
        name, bracket, rest = self.heading.partition("(")
        parts = (*name.split(), bracket + rest, self.unit)
        return [escape_unprintable(part) for part in parts if part]


def percent(share: float) -> str:
    """Write 0.7125 as 71.2."""
    return f"{100 * share:.1f}"


def best_rows(rows: Sequence[Row]) -> frozenset[int]:
    """Return the indices of the highest worst-case accuracies among comparable rows."""
    best = set()
    for i, row in enumerate(rows):
        rivals = [other for other in rows if other.comparison_key == row.comparison_key]
        known = [r.worst_case_accuracy for r in rivals if r.worst_case_accuracy is not None]
        if len(known) > 1 and row.worst_case_accuracy == max(known):
            best.add(i)
    return frozenset(best)


def shared_settings(rows: Sequence[Row]) -> list[str]:
    """Return what all rows have in common and needs no column: data, model, ball, images."""
    settings = [set(map(read, rows)) for read in _SETTINGS.values()]
    settings.append(set(_images(rows)) - {DASH})
    return [values.pop() for values in settings if len(values) == 1 and DASH not in values]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return what to know of the attacks, and a line for each run with evaluations not shown."""
    starts: dict[str, list[str]] = {}
    for attack, start in {pair for row in rows for pair in row.initial_points.items()}:
        starts.setdefault(start, []).append(attack)
    texts = sorted(f"{start} of {', '.join(sorted(names))}" for start, names in starts.items())
    lines = [escape_unprintable(f"Starts of the attacks: {'; '.join(texts)}")] if texts else []
    if quick := _quick_attacks(rows):
        lines.append(escape_unprintable(f"{', '.join(quick)}: {UPPER_BOUND}"))
    return lines + [
        escape_unprintable(f"{row.name}: also there, not shown: {'; '.join(row.not_shown)}")
        for row in rows
        if row.not_shown
    ]


def _quick_attacks(rows: Sequence[Row]) -> list[str]:
    """Return the names of the attacks of the rows that are quick ones."""
    results = [row.result for row in rows if row.result is not None]
    attacks = {name: config for result in results for name, config in result.attacks.items()}
    kinds = [kind.__name__ for kind in QUICK_ATTACKS]
    return sorted(
        name
        for name, config in attacks.items()
        if isinstance(config, Mapping) and config.get("is") in kinds
    )


def build_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns with the settings in which rows differ, the accuracies and the costs.

    If a row has no evaluation, two columns show the validation accuracies of all rows.
    """
    names = [f"{row.name}, {row.unfinished}" if row.unfinished else row.name for row in rows]
    columns = [Column("run", "", names, number=False)]
    for heading, read in _SETTINGS.items():
        if len(set(map(read, rows))) > 1:
            columns.append(Column(heading, "", [read(row) for row in rows], number=False))
    if len({*(images := _images(rows))} - {DASH}) > 1:
        columns.append(Column("images", "", images, number=False))
    for heading, unit, numbers in _measurements(rows):
        marked = best_rows(rows) if heading == "worst" else frozenset[int]()
        columns.append(Column(heading, unit, list(map(_decimal, numbers)), marked=marked))
    return columns


def has_repeated_seeds(rows: Sequence[Row]) -> bool:
    """Return whether some rows differ only in their seed."""
    return len({row.group for row in rows}) < len(rows)


def aggregate_seeds(rows: Sequence[Row]) -> list[Column]:
    """Return columns with one row per group: the mean and the standard deviation over its seeds."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.group, []).append(index)
    columns = [
        Column("run", "", list(groups), number=False),
        Column("seeds", "", [str(len(group)) for group in groups.values()]),
    ]
    for heading, unit, numbers in _measurements(rows):
        cells = [_mean_and_deviation([numbers[i] for i in group]) for group in groups.values()]
        columns.append(Column(heading, unit, cells))
    return columns


Measurement = tuple[str, str, Sequence[float | None]]
"""The heading and the unit of a column, and the number of each row; None is unknown."""


def _measurements(rows: Sequence[Row]) -> list[Measurement]:
    """Return the accuracies, in percent, and the costs that are known of some of the rows."""
    accuracies: list[tuple[str, list[float | None]]] = []
    if any(row.clean_accuracy is not None for row in rows):
        accuracies.append(("clean", [row.clean_accuracy for row in rows]))
        for name in dict.fromkeys(name for row in rows for name in row.robust_accuracy):
            accuracies.append((name, [row.robust_accuracy.get(name) for row in rows]))
        accuracies.append(("worst", [row.worst_case_accuracy for row in rows]))
    if any(row.clean_accuracy is None for row in rows):
        accuracies.append(("validation clean", [row.val_clean for row in rows]))
        accuracies.append(("validation robust", [row.val_robust for row in rows]))
    measurements: list[Measurement] = [
        (heading, "%", [None if share is None else 100 * share for share in shares])
        for heading, shares in accuracies
    ]
    if any(row.cost is not None for row in rows):
        measurements.append(("cost", "per step", [row.cost for row in rows]))
    if any(row.seconds is not None for row in rows):
        measurements.append(("training", "s", [row.seconds for row in rows]))
    return measurements


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return DASH
    if len(known) == 1 or stdev(known) == 0:
        return _decimal(mean(known))
    return f"{_decimal(mean(known))} \N{PLUS-MINUS SIGN} {_decimal(stdev(known))}"


def _decimal(value: float | None) -> str:
    return DASH if value is None else f"{value:,.1f}"


def _images(rows: Sequence[Row]) -> list[str]:
    """Write the number and the split of the images; equally many others are `other images`."""
    first: dict[str, Row] = {}
    texts = []
    for row in rows:
        split = f" ({row.split})" if row.split else ""
        text = f"{row.images:,} images{split}" if row.images else DASH
        others = first.setdefault(text, row).image_ids != row.image_ids
        texts.append(text.replace(" images", " other images") if others else text)
    return texts


def render_table(rows: Sequence[Row], columns: Sequence[Column] | None = None) -> Table:
    """Return the table for a terminal, with the shared settings below it.

    No number and no word of usual length is broken, so that lines can be longer than the terminal:
    print the table with `crop=False`.
    """
    caption = Text(escape_unprintable(" \N{MIDDLE DOT} ".join(shared_settings(rows))))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, caption=caption)
    columns = build_columns(rows) if columns is None else columns
    for column in columns:
        table.add_column(
            Text("\n".join(column.lines)),
            justify="right" if column.number else "left",
            vertical="bottom",
            overflow="fold",
            min_width=_min_width(column),
            no_wrap=column.heading in ("run", "images")
            and max(map(len, column.cells), default=0) <= MAX_NAME,
        )
    for i in range(len(columns[0].cells)):
        styles = ["bold" if i in column.marked else "" for column in columns]
        cells = (escape_unprintable(column.cells[i]) for column in columns)
        table.add_row(*(Text(cell, style=s) for cell, s in zip(cells, styles, strict=True)))
    return table


def _min_width(column: Column) -> int:
    words = [word for text in (*column.lines, *column.cells) for word in text.split()]
    width = max((len(word) for word in words if len(word) <= MAX_WORD), default=1)
    return max(width, *map(len, column.cells)) if column.number else width
