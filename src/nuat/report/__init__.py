"""What came of runs, for people: `render(rows(runs))` in a terminal, `write_page` as one page."""

from nuat.report.page import write_page
from nuat.report.table import render, rows

__all__ = ["render", "rows", "write_page"]
