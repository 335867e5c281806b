"""The figures of the page: training curves, schedules, and robust accuracy against cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nuat.report.figures import (
    LineStyle,
    add_legend,
    chart,
    figure_style,
    line_styles,
    make_panels,
    shorten,
)
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.naming import value_text
from nuat.report.rows import Row
from nuat.report.table import percent
from nuat.runtime.text import escape_unprintable

TITLES = {"val_clean": "clean", "val_fgsm": "under FGSM", "val_robust": "robust (PGD)"}
NO_SCHEDULES = ("epoch", "loss", "seconds", "forward_equivalents", "peak_mib")


@dataclass(frozen=True)
class RunCurve:
    """The metrics of a run by epoch, with its name and its style."""

    name: str
    style: LineStyle
    metrics: Sequence[Mapping[str, Any]]

    def keys(self, validation: bool) -> list[str]:
        """Return the keys of the validation accuracies, or of the schedules."""
        first = {name: value for line in self.metrics for name, value in line.items()}
        return [
            key
            for key, value in first.items()
            if _is_number(value)
            if key not in NO_SCHEDULES and key.startswith("val_") == validation
        ]

    def starts(self, key: str) -> list[float]:
        """Return when the events that `key` counts started, in epochs."""
        lists = (line.get(f"{key}_began") for line in self.metrics)
        return [
            epoch
            for starts in lists
            if isinstance(starts, list)
            for epoch in starts
            if _is_number(epoch)
        ]

    def points(self, key: str, scale: float = 1) -> list[tuple[float, float]]:
        """Return (epoch, value) of each epoch that has the key."""
        numbers = [(line["epoch"], line[key]) for line in self.metrics if _is_number(line.get(key))]
        return [(epoch, scale * value) for epoch, value in numbers]


def _is_number(value: Any) -> bool:
    """Whether a logged value can be drawn: a number that is finite, with room for the axes."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def plot_training(items: Sequence[ReportItem], rows: Sequence[Row]) -> list[dict[str, str]]:
    """Plot loss, validation accuracy and schedules by epoch; [] if no run has an epoch yet."""
    styles = line_styles([row.group for row in rows])
    curves = [
        RunCurve(row.name, style, item.metrics)
        for item, row, style in zip(items, rows, styles, strict=True)
        if not isinstance(item, EvaluationFolder) and item.metrics
    ]
    if not curves:
        return []
    with figure_style():
        charts = [_plot_loss(curves), _plot_accuracy(curves), _plot_schedules(curves)]
    return [figure for figure in charts if figure is not None]


def _plot_loss(curves: Sequence[RunCurve]) -> dict[str, str]:
    figure, (axes,) = make_panels(1, 250, 1)
    _draw(axes, curves, "loss", "training loss")
    add_legend(figure, [curve.style for curve in curves])
    caption = "Mean training loss of each epoch."
    if len(curves) > 1:
        caption += " Methods minimize different losses: compare shapes, not heights."
        caption += " Here and below, the dashes of runs with equal values alternate."
    last = _last_values(curves, "loss", value_text)
    return chart(figure, f"Training loss by epoch. After the last: {last}.", caption)


def _plot_accuracy(curves: Sequence[RunCurve]) -> dict[str, str] | None:
    available = _keys(curves, validation=True)
    if not available:
        return None
    keys = [key for key in TITLES if key in available]
    keys += [key for key in available if key not in TITLES]
    figure, panels = make_panels(len(keys), 270, min(3, len(keys)), share_y=True)
    for axes, key in zip(panels, keys, strict=True):
        _draw(axes, curves, key, _title(key), scale=100)
        axes.set_ylim(-2, 102)
    add_legend(figure, [curve.style for curve in curves])
    caption = (
        "Accuracy on the validation split after each epoch, in percent; robust is under the attack "
        "that the recipe selects the epoch with, by default PGD-7. It is not a result."
    )
    last = (f"{_title(key)}: {_last_values(curves, key, percent)}" for key in keys)
    alt = f"Validation accuracy in percent by epoch. After the last, {'; '.join(last)}."
    return chart(figure, alt, caption)


def _plot_schedules(curves: Sequence[RunCurve]) -> dict[str, str] | None:
    """Plot each schedule that changes or differs between runs; the caption lists the others."""
    keys = _keys(curves, validation=False)
    values = {key: {value for curve in curves for _, value in curve.points(key)} for key in keys}
    constant = {key: numbers.pop() for key, numbers in values.items() if len(numbers) == 1}
    changing = [key for key in keys if key not in constant]
    if not changing:
        return None
    figure, panels = make_panels(len(changing), 210, 3 if len(changing) > 2 else 2)
    for axes, key in zip(panels, changing, strict=True):
        _draw(axes, curves, key, _title(key))
        _draw_starts(axes, curves, key)
    add_legend(figure, [curve.style for curve in curves])
    others = (f"{key} is {value_text(value)} throughout" for key, value in constant.items())
    caption = "; ".join(("Schedules and other logged values by epoch", *others)) + "."
    if any(curve.starts(key) for curve in curves for key in changing):
        caption += " Triangles on the axis mark the starts of the counted events."
    alt = f"Schedules and other logged values by epoch: {', '.join(changing)}."
    return chart(figure, alt, caption)


def _keys(curves: Sequence[RunCurve], validation: bool) -> list[str]:
    return list(dict.fromkeys(key for curve in curves for key in curve.keys(validation)))


def _title(key: str) -> str:
    return shorten(escape_unprintable(TITLES.get(key, key.removeprefix("val_"))))


def _last_values(curves: Sequence[RunCurve], key: str, text: Callable[[Any], str]) -> str:
    last = [(c.name, c.metrics[-1]) for c in curves if _is_number(c.metrics[-1].get(key))]
    return ", ".join(f"{name} {text(line[key])}" for name, line in last)


def _draw(axes: Axes, curves: Sequence[RunCurve], key: str, title: str, scale: float = 1) -> None:
    """Draw a line for each run; equal lines alternate in their dashes, so that all can be seen."""
    lines = [(curve.style, curve.points(key, scale)) for curve in curves]
    distinct = [line for i, line in enumerate(lines) if line[1] and line not in lines[:i]]
    drawn = [points for _, points in distinct]
    for i, (style, points) in enumerate(distinct):
        equal, turn = drawn.count(points), drawn[:i].count(points)
        dash = (6 * turn, (6, 6 * (equal - 1))) if equal > 1 else style.dash
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else ""
        axes.plot(epochs, values, color=style.color, linestyle=dash, marker=marker)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _draw_starts(axes: Axes, curves: Sequence[RunCurve], key: str) -> None:
    """Draw a triangle above the axis at each start of the events that `key` counts."""
    for curve in curves:
        if starts := curve.starts(key):
            (marks,) = axes.plot(starts, [0.04] * len(starts), "^", markersize=5)
            marks.set(color=curve.style.color, transform=axes.get_xaxis_transform())
