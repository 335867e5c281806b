"""Pictures of what a network does: each module measures one and draws it.

`measure_*` returns plain numbers that JSON can hold, and `draw_*` a chart for the page. `measure`
and `draw` do this for several pictures by name; `save` and `load` keep the numbers in a run folder.
"""

from nuat.report.pictures.store import DEFAULT_LAM, MEASURED, NAMES, draw, load, measure, save

__all__ = ["DEFAULT_LAM", "MEASURED", "NAMES", "draw", "load", "measure", "save"]
