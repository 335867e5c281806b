"""One self-contained page about runs and evaluations: no scripts, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from torch import nn

from nuat.attacks import parse_attack
from nuat.data import ImageDataset, load_dataset
from nuat.errors import InputError, NonFiniteError
from nuat.report import curves
from nuat.report.figures import line_styles
from nuat.report.folders import Shown, VerdictFolder
from nuat.report.gallery import GalleryItem, gallery
from nuat.report.naming import ball_text, read_ball
from nuat.report.recipe_tree import Item
from nuat.report.summary import facts, recipe, warnings
from nuat.report.table import Row, columns, common, footnotes, percent, rows
from nuat.runtime.files import atomic_write

ATTACK = "pgd-20"
"""What the galleries show."""


@dataclass(frozen=True)
class Gallery:
    """Exhibits of one run; or, if there are none, why."""

    parse_attack: str
    exhibits: Sequence[GalleryItem] = ()
    missing: str = ""

    @property
    def fallen(self) -> int:
        """How many of the images were classified rightly and are no longer."""
        return sum(each.right and not each.stands for each in self.exhibits)


@dataclass(frozen=True)
class Part:
    """What a page says of one run or evaluation."""

    row: Row
    color: str
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    recipe: Sequence[Item]
    gallery: Gallery | None


def write_page(
    runs: Sequence[Shown],
    target: Path,
    *,
    title: str | None = None,
    networks: Mapping[Path, nn.Module] | None = None,
    images: ImageDataset | None = None,
    note: Callable[[str], object] = lambda line: None,
) -> Path:
    """Write a page about runs and evaluations, side by side, whole or not at all.

    Args:
        runs: what to show, in this order.
        target: the file to write.
        title: by default, what the runs are.
        networks: the network of each run folder that is to have a gallery of attacked images.
        images: what the galleries show; by default the test split of the run's own data set.
        note: is told, in a line, why a gallery has no images.

    Returns:
        The target. The same runs, networks and images give the same bytes.

    Raises:
        InputError: there are no runs.
    """
    if not runs:
        raise InputError("there are no runs to show")
    networks = {path.resolve(): f for path, f in (networks or {}).items()}
    table = rows(runs, networks)
    as_dataset = cache(lambda name: images if images is not None else load_dataset(name).test)
    galleries = [_gallery(run, networks.get(run.path.resolve()), as_dataset) for run in runs]
    for run, shown in zip(runs, galleries, strict=True):
        if shown and shown.missing:
            note(f"{run.path} is shown without images: {shown.missing}")
    drawn = line_styles([row.kind for row in table])
    parts = [
        Part(row, stroke.color, warnings(run), facts(run, row), recipe(run), shown)
        for run, row, stroke, shown in zip(runs, table, drawn, galleries, strict=True)
    ]
    title = title or _title(runs, table)
    html = _template().render(
        title=title,
        rows=table,
        columns=columns(table),
        common=[text for text in common(table) if text not in title],
        scored=any(row.clean is not None for row in table),
        footnotes=footnotes(table),
        unscored=any(row.clean is None for row in table),
        cost=curves.cost(table),
        training=curves.training(runs),
        parts=parts,
        heading=" and ".join(kind for kind, _ in _kinds(runs)),
        costed=any(row.cost is not None for row in table),
    )
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, lambda file: file.write_text(html, encoding="utf-8", errors="replace"))
    return target


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


def _title(runs: Sequence[Shown], table: Sequence[Row]) -> str:
    data = {row.data or "" for row in table}
    counted = " and ".join(f"{count} {kind}" for kind, count in _kinds(runs))
    subject = table[0].name if len(table) == 1 else counted
    return f"{subject} on {data.pop()}" if len(data) == 1 and all(data) else subject


def _kinds(runs: Sequence[Shown]) -> list[tuple[str, int]]:
    """What is shown, and how many of it: [("runs", 2), ("evaluation", 1)]."""
    verdicts = sum(isinstance(run, VerdictFolder) for run in runs)
    counts = {"run": len(runs) - verdicts, "evaluation": verdicts}
    return [(kind + "s" * (count > 1), count) for kind, count in counts.items() if count]


def _gallery(
    run: Shown, f: nn.Module | None, as_dataset: Callable[[str], ImageDataset]
) -> Gallery | None:
    """The gallery of a run, None without its network."""
    if f is None or isinstance(run, VerdictFolder):
        return None
    config = run.config
    ball = read_ball(config["recipe"]["ball"])
    name = f"{ATTACK} within {ball_text(config['recipe']['ball'])}"
    try:
        if ball is None:
            raise InputError("its norm is not registered here")
        images, classes = as_dataset(config["data"]["name"]), config["data"]["classes"]
        return Gallery(name, gallery(f, images, classes, ball, parse_attack(ATTACK, ball)))
    except (InputError, NonFiniteError) as error:
        return Gallery(name, missing=str(error))
