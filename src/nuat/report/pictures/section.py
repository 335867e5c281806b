"""The section of the page that shows what `nuat figures` has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from nuat.errors import InputError
from nuat.nn.fingerprint import fingerprint
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.pictures.radii import draw_radii
from nuat.report.pictures.store import draw, load
from nuat.report.rows import Row


@dataclass
class PictureSection:
    """The pictures of all runs of a page.

    Attributes:
        radii: robust accuracy against eps of all runs, a chart for each norm.
        runs: the other charts of each run that has some, by name.
        missing: what cannot be shown, as sentences without a full stop.
    """

    radii: list[dict[str, str]] = field(default_factory=list)
    runs: list[tuple[str, list[dict[str, str]]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def picture_section(
    items: Sequence[ReportItem], rows: Sequence[Row], models: Mapping[Path, nn.Module]
) -> PictureSection:
    """Draw the stored pictures of the runs; nothing is attacked.

    Args:
        items: runs and evaluations; the latter have no pictures.
        rows: their rows, which name them.
        models: the loaded models by run folder; pictures of other weights are not shown.
    """
    section, by_norm = PictureSection(), dict[str, dict[str, dict[str, Any]]]()
    for item, row in zip(items, rows, strict=True):
        if isinstance(item, EvaluationFolder):
            continue
        model = models.get(item.path.resolve())
        try:
            data = load(item.path, None if model is None else fingerprint(model))
        except InputError as error:
            section.missing.append(f"{row.name} is shown without pictures: {error}")
            data = {}
        charts = draw(data, item.metrics)
        if charts.pop("radii", None):
            norm = data["radii"]["ball"].partition("(")[0]
            by_norm.setdefault(norm, {})[row.name] = data["radii"]
        if charts:
            section.runs.append((row.name, list(charts.values())))
    section.radii = [draw_radii(radii) for radii in by_norm.values()]
    return section
