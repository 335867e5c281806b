"""What came of runs and evaluations: `render(rows(runs))` in a terminal, `write_page` as a page."""

from nuat.report.aggregate import aggregate_seeds, repeated
from nuat.report.folders import Shown, VerdictFolder, opened
from nuat.report.page import write_page
from nuat.report.table import footnotes, render, rows

__all__ = [
    "Shown",
    "VerdictFolder",
    "footnotes",
    "opened",
    "aggregate_seeds",
    "render",
    "repeated",
    "rows",
    "write_page",
]
