"""The figures of a page: training curves, schedules, accuracy against cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nuat.report.annotations import label
from nuat.report.figures import Chart, LineStyle, legend, line_styles, panels, short, styled, to_svg
from nuat.report.folders import Shown
from nuat.report.naming import Name, names, plain, printable
from nuat.report.table import Row, percent

TITLES = {"val_clean": "clean", "val_fgsm": "under FGSM", "val_robust": "robust (PGD)"}


@dataclass(frozen=True)
class RunCurve:
    """A run that has an epoch: its name, its look, its lines of metrics."""

    name: Name
    stroke: LineStyle
    lines: Sequence[Mapping[str, Any]]

    @property
    def keys(self) -> list[str]:
        """The keys of numbers by epoch, other than the loss."""
        return [
            key
            for key, value in {name: v for line in self.lines for name, v in line.items()}.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
            if key not in ("epoch", "loss", "seconds")
        ]

    def moments(self, key: str) -> list[float]:
        """When what `key` counts began, in epochs."""
        return [moment for line in self.lines for moment in line.get(f"{key}_began", [])]

    def points(self, key: str, scale: float = 1) -> list[tuple[float, float]]:
        """(epoch, value) wherever the key is."""
        return [(line["epoch"], scale * line[key]) for line in self.lines if key in line]


def training(runs: Sequence[Shown]) -> list[Chart]:
    """Loss, validation accuracy and schedules of runs, by epoch; empty if none has an epoch yet."""
    called = names(runs)
    every = zip(called, line_styles([name.kind for name in called]), runs, strict=True)
    tracks = [RunCurve(name, stroke, run.metrics) for name, stroke, run in every]
    tracks = [track for track in tracks if track.lines]
    if not tracks:
        return []
    with styled():
        charts = [_loss(tracks), _accuracy(tracks), _schedules(tracks)]
    return [chart for chart in charts if chart is not None]


def _loss(tracks: Sequence[RunCurve]) -> Chart:
    figure, (axes,) = panels(1, 250, 1)
    _draw(axes, tracks, "loss", "training loss")
    legend(figure, [track.stroke for track in tracks])
    caption = "Mean training loss of each epoch."
    if len(tracks) > 1:
        caption += " Each method has a loss of its own: compare shapes, not heights. "
        caption += "Here and below, runs that share a line alternate in its dashes."
    alt = f"Training loss by epoch. After the last: {_last(tracks, 'loss', plain)}."
    return Chart(to_svg(figure, "loss", alt), alt, caption)


def _accuracy(tracks: Sequence[RunCurve]) -> Chart:
    found = _keys(tracks, validation=True)
    keys = [key for key in TITLES if key in found]
    keys += [key for key in found if key not in TITLES]
    figure, grid = panels(len(keys), 270, min(3, len(keys)), share=True)
    for axes, key in zip(grid, keys, strict=True):
        _draw(axes, tracks, key, _title(key), scale=100)
        axes.set_ylim(-2, 102)
    legend(figure, [track.stroke for track in tracks])
    caption = (
        "Accuracy on the validation split after each epoch, in percent; PGD is of 7 steps. It "
        "chooses the epoch that is kept and is never a result."
    )
    last = (f"{_title(key)}: {_last(tracks, key, percent)}" for key in keys)
    alt = f"Validation accuracy in percent by epoch. After the last, {'; '.join(last)}."
    return Chart(to_svg(figure, "accuracy", alt), alt, caption)


def _keys(tracks: Sequence[RunCurve], validation: bool) -> list[str]:
    """The keys of validation accuracies, or all others, in the order in which they first come."""
    keys = dict.fromkeys(key for track in tracks for key in track.keys)
    return [key for key in keys if key.startswith("val_") == validation]


def _title(key: str) -> str:
    return short(printable(TITLES.get(key, key.removeprefix("val_"))))


def _last(tracks: Sequence[RunCurve], key: str, text: Callable[[Any], str]) -> str:
    known = [track for track in tracks if key in track.lines[-1]]
    return ", ".join(f"{track.name} {text(track.lines[-1][key])}" for track in known)


def _schedules(tracks: Sequence[RunCurve]) -> Chart | None:
    """A panel for each number that moves, or differs between runs; the others in the caption."""
    keys = _keys(tracks, validation=False)
    found = {key: {value for t in tracks for _, value in t.points(key)} for key in keys}
    still = {key: values.pop() for key, values in found.items() if len(values) == 1}
    moving = [key for key in keys if key not in still]
    if not moving:
        return None
    figure, grid = panels(len(moving), 210, 3 if len(moving) > 2 else 2)
    for axes, key in zip(grid, moving, strict=True):
        _draw(axes, tracks, key, _title(key))
        _draw_moments(axes, tracks, key)
    legend(figure, [track.stroke for track in tracks])
    constant = (f"{key} is {plain(value)} throughout" for key, value in still.items())
    caption = "; ".join(("Schedules, and what else was noted, by epoch", *constant)) + "."
    if any(track.moments(key) for track in tracks for key in moving):
        caption += " Triangles on the axis: the moments at which it began."
    alt = f"Schedules and notes by epoch: {', '.join(moving)}."
    return Chart(to_svg(figure, "schedules", alt), alt, caption)


def _draw(axes: Axes, tracks: Sequence[RunCurve], key: str, title: str, scale: float = 1) -> None:
    """A line for each run that has the key; where lines are equal, their dashes alternate."""
    drawn = [(track.stroke, track.points(key, scale)) for track in tracks]
    different = list({(stroke.kind, tuple(points)): None for stroke, points in drawn})
    looks = {stroke.kind: stroke for stroke, _ in drawn}
    every = [points for _, points in different]
    for place, (kind, points) in enumerate(different):
        twins, turn = every.count(points), every[:place].count(points)
        dash = (6 * turn, (6, 6 * (twins - 1))) if twins > 1 else looks[kind].dash
        epochs, values = zip(*points, strict=True) if points else ((), ())
        marker = "o" if len(points) == 1 else ""
        axes.plot(epochs, values, color=looks[kind].color, linestyle=dash, marker=marker)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _draw_moments(axes: Axes, tracks: Sequence[RunCurve], key: str) -> None:
    """A triangle above the axis at each moment at which what `key` counts began."""
    for track in tracks:
        if moments := track.moments(key):
            (marks,) = axes.plot(moments, [0.04] * len(moments), "^", markersize=5)
            marks.set(color=track.stroke.color, transform=axes.get_xaxis_transform())


def cost(rows: Sequence[Row]) -> Chart | None:
    """Worst robust accuracy against cost, a dot for each run; None for less than two dots."""
    looks = zip(rows, line_styles([row.kind for row in rows]), strict=True)
    dots = [
        (row.cost, 100 * row.worst, row, stroke.color)
        for row, stroke in looks
        if row.worst is not None and row.cost is not None
    ]
    if len(dots) < 2:
        return None
    alt = "; ".join(f"{row.name}: {y:.1f} % at {x:.1f}" for x, y, row, _ in dots)
    alt = f"Worst robust accuracy against cost of a training step. {alt}."
    caption = "Robust accuracy against what it costs. Up and to the left is better."
    with styled():
        figure, (axes,) = panels(1, 380, 1)
        across, up, shown, colors = zip(*dots, strict=True)
        axes.scatter(across, up, c=colors, s=52, zorder=3)
        axes.set_title("worst robust accuracy, %")
        axes.set_xlabel("cost of a training step, in forward passes of the batch")
        axes.set_xlim(0, max(across) * 1.12)
        air = max(3.0, 0.15 * (max(up) - min(up)))
        axes.set_ylim(max(-3.0, min(up) - air), min(103.0, max(up) + air))
        label(axes, list(zip(across, up, strict=True)), _labels(up, [row.kind for row in shown]))
        return Chart(to_svg(figure, "cost", alt), alt, caption)


def _labels(up: Sequence[float], kinds: Sequence[str]) -> list[str]:
    """The kind of each run, once: at the highest of its dots."""
    places = range(len(kinds))
    top = {kinds[i]: i for i in sorted(places, key=lambda i: (up[i], -i))}
    return [short(kinds[i]) if top[kinds[i]] == i else "" for i in places]
