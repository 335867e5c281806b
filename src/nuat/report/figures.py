"""The style of the figures, and figures as SVG data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colors of Okabe and Ito, which color-blind readers can tell apart, without the yellow."""

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D")
INK, FAINT = "#333333", "#767676"
WIDTH, DPI = 700, 72
"""Figures are 700 px wide; matplotlib's SVG has 72 px per inch."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nuat",
    "figure.dpi": DPI,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.06,
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.frameon": False,
    "legend.fontsize": 12,
}


class LineStyle(NamedTuple):
    """How the runs of one group are drawn in all figures of a page."""

    group: str
    color: str
    dash: Any
    marker: str


def line_styles(groups: Sequence[str]) -> list[LineStyle]:
    """Return a style for each run: a color per group, then dashes and markers as well."""
    styles = {}
    for i, group in enumerate(dict.fromkeys(groups)):
        color, turn = PALETTE[i % len(PALETTE)], i // len(PALETTE) % len(DASHES)
        styles[group] = LineStyle(group, color, DASHES[turn], MARKERS[turn])
    return [styles[group] for group in groups]


def shorten(text: str, length: int = 32) -> str:
    """Cut a text that is longer than a figure has room for."""
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def figure_style() -> Iterator[None]:
    """Make figures in the style of the page, whatever the user's own settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Browsers have fonts for the characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def make_panels(
    count: int, height: int, columns: int, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in rows that are `height` px high."""
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH / DPI, lines * height / DPI), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=share_y).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def add_legend(figure: Figure, styles: Sequence[LineStyle], markers: bool = False) -> None:
    """Add a legend above the panels if there are several groups; the figure grows to fit it."""
    styles = list(dict.fromkeys(styles))
    if len(styles) < 2:
        return
    labels = [shorten(style.group) for style in styles]
    columns = max(1, min(len(styles), 84 // (max(map(len, labels)) + 6)))
    handles = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle="")
        if markers
        else Line2D([], [], color=style.color, linestyle=style.dash)
        for style in styles
    ]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 20 / DPI * -(-len(styles) // columns))


def chart(figure: Figure, alt: str, caption: str) -> dict[str, str]:
    """Return the figure for the page: `src`, an SVG data URI, with its `alt` text and `caption`."""
    file = io.BytesIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=no_metadata)
    data = base64.b64encode(file.getvalue()).decode()
    return {"src": f"data:image/svg+xml;base64,{data}", "alt": alt, "caption": caption}
