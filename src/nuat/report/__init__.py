"""Reports on runs and evaluations: a table for the terminal and a self-contained HTML page."""

from nuat.report.folders import EvaluationFolder, ReportItem, open_item
from nuat.report.page import write_page
from nuat.report.rows import Row, build_rows
from nuat.report.table import aggregate_seeds, footnotes, has_repeated_seeds, render_table

__all__ = [
    "EvaluationFolder",
    "ReportItem",
    "Row",
    "aggregate_seeds",
    "build_rows",
    "footnotes",
    "has_repeated_seeds",
    "open_item",
    "render_table",
    "write_page",
]
