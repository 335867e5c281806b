"""The figures that compare rows: robust accuracy against cost, and which attack breaks how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from nuat.evaluation.intervals import wilson
from nuat.recipes.published import published_accuracies
from nuat.report.figures import (
    PALETTE,
    LineStyle,
    add_legend,
    chart,
    figure_style,
    line_styles,
    make_panels,
    shorten,
)
from nuat.report.rows import Row
from nuat.report.verdicts import falls
from nuat.runtime.text import escape_unprintable


@dataclass(frozen=True)
class Dot:
    """A row in the plane of cost and robust accuracy, in percent.

    Attributes:
        low, high: Wilson's interval of 95 %.
        published: the published accuracy under the same attacks, the lowest of several, or None.
    """

    name: str
    style: LineStyle
    cost: float
    robust: float
    low: float
    high: float
    published: float | None


def _dots(rows: Sequence[Row]) -> list[Dot]:
    dots = []
    for row, style in zip(rows, line_styles([row.group for row in rows]), strict=True):
        robust, images = row.worst_case_accuracy, row.images
        if robust is None or images is None or row.cost is None:
            continue
        low, high = wilson(round(robust * images), images)
        published = published_accuracies(row.data or "", row.group)
        known = [published[attack] for attack in row.robust_accuracy if attack in published]
        lowest = min(known, default=None)
        dots.append(Dot(row.name, style, row.cost, 100 * robust, 100 * low, 100 * high, lowest))
    return dots


def plot_cost(rows: Sequence[Row]) -> dict[str, str] | None:
    """Plot worst-case accuracy against cost, a dot per run; None for fewer than two dots."""
    dots = _dots(rows)
    if len(dots) < 2:
        return None
    listed = "; ".join(f"{dot.name}: {dot.robust:.1f} % at {dot.cost:.1f}" for dot in dots)
    alt = f"Worst robust accuracy against the cost of a training step. {listed}."
    caption = "Up and to the left is better. Bars are 95 % intervals for the number of images."
    with figure_style():
        figure, (axes,) = make_panels(1, 380, 1)
        for dot in dots:
            _draw_dot(axes, dot)
        axes.set_title("worst robust accuracy, %")
        axes.set_xlabel("cost of a training step, in forward passes of the batch")
        axes.set_xlim(0, 1.12 * max(dot.cost for dot in dots))
        axes.margins(y=0.15)
        add_legend(figure, [dot.style for dot in dots], markers=True)
        if published := [dot for dot in dots if dot.published is not None]:
            caption += " Hollow marks are the published accuracies under the same attacks."
            listed = "; ".join(f"{dot.name} {dot.published:.1f} %" for dot in published)
            alt += f" Published: {listed}."
        return chart(figure, alt, caption)


def _draw_dot(axes: Axes, dot: Dot) -> None:
    look: dict[str, Any] = {"color": dot.style.color, "marker": dot.style.marker, "markersize": 8}
    errors = [[dot.robust - dot.low], [dot.high - dot.robust]]
    axes.errorbar([dot.cost], [dot.robust], errors, **look, capsize=3, elinewidth=1.2, zorder=3)
    if dot.published is not None:
        axes.plot([dot.cost], [dot.published], **look, markerfacecolor="none", zorder=2)


def plot_falls(rows: Sequence[Row]) -> dict[str, str] | None:
    """Plot a bar for each evaluated row: its images by what they fall to first."""
    evaluated = [(row.name, falls(row.result)) for row in rows if row.result and row.result.robust]
    if not evaluated:
        return None
    kinds = list(dict.fromkeys(kind for _, counts in evaluated for kind, _ in counts))
    kinds.remove("standing")
    kinds.append("standing")
    attacks = kinds[1:-1]
    shades = dict(
        zip(attacks, (PALETTE[i % 5] for i in (1, 4, 3, 0, 2) * len(attacks)), strict=False)
    )
    colors = {"misclassified": "#9aa1a8", "standing": "#1b6e53"} | shades
    with figure_style():
        figure, (axes,) = make_panels(1, 70 + 30 * len(evaluated), 1)
        for position, (_, counts) in enumerate(evaluated):
            left, total = 0.0, sum(count for _, count in counts)
            for kind, count in counts:
                share = 100 * count / total
                axes.barh(position, share, left=left, color=colors[kind], height=0.62)
                left += share
        axes.set_yticks(range(len(evaluated)), [_label(name) for name, _ in evaluated])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("percentage of the images")
        axes.grid(visible=False, axis="y")
        handles = [Patch(color=colors[kind], label=_label(kind)) for kind in kinds]
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        figure.set_figheight(figure.get_figheight() + 0.3 * -(-len(kinds) // 4))
        described = "; ".join(
            f"{name}: " + ", ".join(f"{kind} {count:,}" for kind, count in counts)
            for name, counts in evaluated
        )
        caption = (
            "Each image counts where it falls first: misclassified without an attack, then under "
            "the attacks in their order; the rest withstands all of them."
        )
        return chart(figure, f"Images by what they fall to. {described}.", caption)


def _label(name: str) -> str:
    return shorten(escape_unprintable(name))
