"""What came of runs, for people: `render(rows(runs))` in a terminal, `write_page` as one page."""

from nuat.report.page import write_page
from nuat.report.seeds import over_seeds, repeated
from nuat.report.table import asides, render, rows

__all__ = ["asides", "over_seeds", "render", "repeated", "rows", "write_page"]
