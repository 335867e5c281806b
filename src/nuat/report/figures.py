"""How figures look, and how they become SVG inside a page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours for every kind of colour vision, less yellow, which fades on white."""

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
INK, FAINT, GRID = "#333333", "#767676", "#e6e6e6"
WIDTH, INCH = 700, 72
"""Figures are 700 px wide; matplotlib's SVG has 72 px to the inch."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.dpi": INCH,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.06,
    "text.parse_math": False,
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
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


@dataclass(frozen=True)
class Chart:
    """A figure for a page: an inline <svg>, what it shows in words, and its caption."""

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class LineStyle:
    """How the runs of one kind are drawn, everywhere on a page."""

    kind: str
    color: str
    dash: Any = "-"


def line_styles(kinds: Sequence[str]) -> list[LineStyle]:
    """A stroke for each run: a colour for each kind, and dashes once the colours are used up."""
    looks = {
        kind: LineStyle(kind, PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)])
        for i, kind in enumerate(dict.fromkeys(kinds))
    }
    return [looks[kind] for kind in kinds]


def short(text: str, length: int = 32) -> str:
    """The text, cut if it is longer than a figure has room for."""
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def styled() -> Iterator[None]:
    """Inside, figures are made in this style, whatever the user's own settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts that we lack
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def panels(count: int, height: int, columns: int, share: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure 700 px wide with `count` panels, each row `height` px high."""
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH / INCH, lines * height / INCH), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=share).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])


def legend(figure: Figure, drawn: Sequence[LineStyle]) -> None:
    """A legend above the panels, for which the figure grows; none for a single kind."""
    every = list(dict.fromkeys(drawn))
    if len(every) < 2:
        return
    labels = [short(each.kind) for each in every]
    across = max(1, min(len(every), 84 // (max(map(len, labels)) + 6)))
    box = figure.legend(
        [Line2D([], [], color=each.color, linestyle=each.dash) for each in every],
        ["x" * len(text) for text in labels],
        loc="outside upper left",
        ncols=across,
        handlelength=1.8,
        columnspacing=1.4,
    )
    for shown, text in zip(box.get_texts(), labels, strict=True):
        shown.set_text(text)  # afterwards: a legend leaves out labels that begin with _
    figure.set_figheight(figure.get_figheight() + 20 / INCH * -(-len(every) // across))


def to_svg(figure: Figure, key: str, alt: str) -> str:
    """The figure as an <svg> element for a page in HTML, the same text for the same figure.

    Every id begins with `key`; there are no scripts, styles, addresses or dates.
    """
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(file, format="svg")
    root = ElementTree.fromstring(file.getvalue())
    _strip(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name.rpartition("}")[2]: _prefixed(name, value, key)
            for name, value in element.attrib.items()
        }
    height = round(figure.get_figheight() * INCH)
    root.attrib = {"viewBox": root.attrib["viewBox"], "width": f"{WIDTH}", "height": f"{height}"}
    root.attrib |= {"stroke-linejoin": "round", "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def _strip(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            _strip(child)


def _prefixed(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name.endswith("href"):
        return value.replace("#", f"#{key}-")
    return value.replace("url(#", f"url(#{key}-")
