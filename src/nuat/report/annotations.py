"""Labels beside dots, where they cover neither a dot nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_PLACES = (
    *((9, 0, "left", "center"), (-9, 0, "right", "center")),
    *((0, 9, "center", "bottom"), (0, -9, "center", "top")),
    *((7, 5, "left", "bottom"), (7, -5, "left", "top")),
    *((-7, 5, "right", "bottom"), (-7, -5, "right", "top")),
    *((0, 24, "center", "bottom"), (0, -24, "center", "top")),
)
"""Where a label may be: pixels to the right of its dot and above it, and its own alignment."""


def label(axes: Axes, dots: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write each text beside its dot, at the first free place around it, or else the least full.

    An empty text is a dot without a label.
    """
    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    canvas.draw()
    taken = [_around(axes, dot) for dot in dots]
    for dot, text in zip(dots, texts, strict=True):
        if not text:
            continue
        options = [_written(axes, dot, text, place) for place in _PLACES]
        boxes = [option.get_window_extent(canvas.get_renderer()) for option in options]
        cover = [_covered(axes, box, taken) for box in boxes]
        chosen = cover.index(min(cover))
        taken.append(boxes[chosen])
        for place, option in enumerate(options):
            if place != chosen:
                option.remove()


def _around(axes: Axes, dot: tuple[float, float]) -> Bbox:
    x, y = axes.transData.transform(dot)
    return Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)


def _written(axes: Axes, dot: tuple[float, float], text: str, place: Any) -> Annotation:
    across, up, horizontal, vertical = place
    return axes.annotate(
        text, dot, (across, up), textcoords="offset points", ha=horizontal, va=vertical
    )


def _covered(axes: Axes, box: Bbox, taken: Sequence[Bbox]) -> float:
    """Square pixels of the box that are on others, or outside the panel."""
    shared = [Bbox.intersection(box, other) for other in taken]
    inside = Bbox.intersection(box, axes.get_window_extent())
    outside = _area(box) - (_area(inside) if inside else 0.0)
    return round(sum(_area(part) for part in shared if part) + outside, 3)


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
