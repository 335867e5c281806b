"""The same table over seeds: mean and standard deviation of runs that differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import mean, stdev

from nuat.report.rows import Row
from nuat.report.table import DASH, Column, attacks


def repeated(rows: Sequence[Row]) -> bool:
    """Whether some rows are of one kind, and differ in their seed alone."""
    return len({row.kind for row in rows}) < len(rows)


def aggregate_seeds(rows: Sequence[Row]) -> list[Column]:
    """A line for each kind of run, in the order in which they first come: `82.5 +- 1.0`."""
    order = list(dict.fromkeys(row.kind for row in rows))
    by_kind = sorted(rows, key=lambda row: order.index(row.kind))
    groups = [list(group) for _, group in groupby(by_kind, key=lambda row: row.kind)]

    def column(
        heading: str, unit: str, read: Callable[[Row], float | None], scale: float
    ) -> Column:
        return Column(
            heading, unit, [_spread([read(row) for row in group], scale) for group in groups]
        )

    return [
        Column("run", "", order, number=False),
        Column("seeds", "", [str(len(group)) for group in groups]),
        column("clean", "%", lambda row: row.clean, 100),
        *(column(name, "%", lambda row, n=name: row.robust.get(n), 100) for name in attacks(rows)),
        column("worst", "%", lambda row: row.worst, 100),
        column("cost", "per step", lambda row: row.cost, 1),
        column("training", "s", lambda row: row.seconds, 1),
    ]


def _spread(values: Sequence[float | None], scale: float) -> str:
    known = [scale * value for value in values if value is not None]
    if len(known) < len(values):
        return DASH
    if len(known) == 1 or stdev(known) == 0:
        return f"{mean(known):.1f}"
    return f"{mean(known):.1f} \N{PLUS-MINUS SIGN} {stdev(known):.1f}"
