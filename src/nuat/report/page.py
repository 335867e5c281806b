"""The self-contained HTML page about runs and evaluations, without remote content."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from torch import nn

from nuat.attacks import parse_attack
from nuat.data import ImageDataset, check_recorded_dataset, load_dataset
from nuat.errors import InputError, NonFiniteError
from nuat.report.comparison import plot_cost, plot_falls
from nuat.report.curves import plot_training
from nuat.report.diagnoses import stored_diagnoses
from nuat.report.figures import line_styles
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.gallery import build_gallery
from nuat.report.naming import read_ball, value_text
from nuat.report.pictures.section import picture_section
from nuat.report.rows import Row, build_rows
from nuat.report.summary import list_facts, list_recipe, list_warnings
from nuat.report.table import build_columns, footnotes, percent, shared_settings
from nuat.report.verdicts import class_table, paired_tests, verdict_sentence
from nuat.runtime.files import atomic_write
from nuat.runtime.text import escape_unprintable

GALLERY_ATTACK = "pgd-20"


def write_page(
    items: Sequence[ReportItem],
    target: Path,
    *,
    models: Mapping[Path, nn.Module] | None = None,
    images: ImageDataset | None = None,
    warn: Callable[[str], object] = lambda line: None,
) -> Path:
    """Write a page that compares runs and evaluations; the file is replaced atomically.

    Args:
        items: runs and evaluations, in the order of the page.
        target: the file to write.
        models: the loaded models by run folder; each of these runs gets a gallery of images.
        images: the images of the galleries; by default the test split of the run's data set.
        warn: called with a message for each gallery that cannot be made.

    Returns:
        The target. Equal items, models and images give an equal file.

    Raises:
        InputError: there are no items.
    """
    html = render_page(items, models=models, images=images, warn=warn)
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, lambda file: file.write_text(html, encoding="utf-8", errors="replace"))
    return target


def render_page(
    items: Sequence[ReportItem],
    *,
    models: Mapping[Path, nn.Module] | None = None,
    images: ImageDataset | None = None,
    warn: Callable[[str], object] = lambda line: None,
) -> str:
    """Return the page of `write_page` as text."""
    if not items:
        raise InputError("there are no runs or evaluations to show: name at least one folder")
    models = {path.resolve(): model for path, model in (models or {}).items()}
    load = cache(lambda name: images if images is not None else _load_recorded(name))
    rows = build_rows(items, models)
    sections = []
    for item, row, style in zip(items, rows, line_styles([r.group for r in rows]), strict=True):
        section = {"row": row, "color": style.color, "facts": list_facts(item, row)}
        section |= {"warnings": list_warnings(item), "recipe": [], "gallery": None}
        section["verdict"] = verdict_sentence(row)
        if not isinstance(item, EvaluationFolder):
            section["recipe"] = list_recipe(item.config["recipe"])
            if model := models.get(item.path.resolve()):
                section["gallery"] = gallery = _gallery(item.config, model, load)
                if gallery["missing"]:
                    warn(f"{item.path} is shown without images: {gallery['missing']}")
        sections.append(section)
    title, columns = _title(items, rows), build_columns(rows)
    pictures = picture_section(items, rows, models)
    diagnoses, unread = stored_diagnoses(items, rows, models)
    return _template().render(
        title=title,
        settings=[text for text in shared_settings(rows) if text not in title],
        columns=columns,
        sections=sections,
        footnotes=footnotes(rows),
        headings=[column.heading for column in columns],
        cost=plot_cost(rows),
        falls=plot_falls(rows),
        classes=class_table(rows, [_class_names(item) for item in items]),
        tests=paired_tests(rows),
        pictures=pictures,
        diagnoses=diagnoses,
        missing=[*_missing(items, rows, models), *pictures.missing, *unread],
        script=_script(),
        script_hash=b64encode(hashlib.sha256(_script().encode()).digest()).decode(),
        training=plot_training(items, rows),
        heading=" and ".join(kind for kind, _ in _count_kinds(items)),
    )


def _script() -> str:
    return Path(__file__).with_name("page.js").read_text(encoding="utf-8")


def _class_names(item: ReportItem) -> Sequence[str]:
    return () if isinstance(item, EvaluationFolder) else item.config["data"]["classes"]


def _missing(
    items: Sequence[ReportItem], rows: Sequence[Row], models: Mapping[Path, nn.Module]
) -> list[str]:
    """What the page cannot show, as sentences."""
    texts = []
    for item, row in zip(items, rows, strict=True):
        if row.unfinished:
            texts.append(f"{row.name} is unfinished: {row.unfinished}")
        if row.result is None:
            texts.append(f"{row.name} has no evaluation, so that its robust accuracy is unknown")
        if isinstance(item, EvaluationFolder):
            texts.append(f"{row.name} is an evaluation without a run: no training, no images")
        elif item.path.resolve() not in models:
            texts.append(f"{row.name} has no images under attack: its model was not loaded")
    return [escape_unprintable(text) for text in texts]


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template("page.html.j2")


def _title(items: Sequence[ReportItem], rows: Sequence[Row]) -> str:
    data = {row.data or "" for row in rows}
    counts = " and ".join(f"{count} {kind}" for kind, count in _count_kinds(items))
    subject = rows[0].name if len(rows) == 1 else counts
    return f"{subject} on {data.pop()}" if len(data) == 1 and all(data) else subject


def _count_kinds(items: Sequence[ReportItem]) -> list[tuple[str, int]]:
    """Return the kinds of items with their numbers: [("runs", 2), ("evaluation", 1)]."""
    evaluations = sum(isinstance(item, EvaluationFolder) for item in items)
    counts = {"run": len(items) - evaluations, "evaluation": evaluations}
    return [(kind + "s" * (count > 1), count) for kind, count in counts.items() if count]


def _load_recorded(name: str) -> ImageDataset:
    check_recorded_dataset(name, "the run")
    return load_dataset(name).test


def _gallery(
    config: Mapping[str, Any], model: nn.Module, load: Callable[[str], ImageDataset]
) -> dict[str, Any]:
    """Return the images of a gallery or, if there are none, the reason in `missing`."""
    ball = read_ball(config["recipe"]["ball"])
    attack = f"{GALLERY_ATTACK} within {value_text(config['recipe']['ball'])}"
    try:
        if ball is None:
            raise InputError("the norm of its threat model is not registered here")
        images, classes = load(config["data"]["name"]), config["data"]["classes"]
        items = build_gallery(model, images, classes, ball, parse_attack(GALLERY_ATTACK, ball))
    except (InputError, NonFiniteError) as error:
        return {"attack": attack, "images": [], "missing": str(error)}
    broken = sum(item.correct and not item.robust for item in items)
    return {"attack": attack, "images": items, "broken": broken, "missing": ""}
