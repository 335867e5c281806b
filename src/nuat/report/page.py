"""One self-contained page about runs: no scripts, and nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from torch import nn

from nuat.attacks import attack
from nuat.data import Source, load
from nuat.errors import InputError, NonFinite
from nuat.progress import clock
from nuat.report import curves
from nuat.report.figures import strokes
from nuat.report.gallery import Exhibit, gallery
from nuat.report.naming import ball_text, read_ball
from nuat.report.outline import Item, outline
from nuat.report.table import Row, asides, columns, common, percent, rows
from nuat.runs import Run, whole

ATTACK = "pgd-20"
"""What the galleries show."""

TOLD = ("name", "source", "note")
"""Fields of a recipe that have a place of their own on the page."""


@dataclass(frozen=True)
class Gallery:
    """Exhibits of one run; or, if there are none, why."""

    attack: str
    exhibits: Sequence[Exhibit] = ()
    missing: str = ""

    @property
    def fallen(self) -> int:
        """How many of the images were classified rightly and are no longer."""
        return sum(each.right and not each.stands for each in self.exhibits)


@dataclass(frozen=True)
class Part:
    """What a page says of one run."""

    row: Row
    color: str
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    recipe: Sequence[Item]
    gallery: Gallery | None


def write_page(
    runs: Sequence[Run],
    target: Path,
    *,
    title: str | None = None,
    networks: Mapping[Path, nn.Module] | None = None,
    images: Source | None = None,
) -> Path:
    """Write a page about runs, side by side, whole or not at all.

    Args:
        runs: what to show, in this order.
        target: the file to write.
        title: by default, what the runs are.
        networks: the network of each run folder that is to have a gallery of attacked images.
        images: what the galleries show; by default the test split of the run's own data set.

    Returns:
        The target. The same runs, networks and images give the same bytes.

    Raises:
        InputError: there are no runs.
    """
    if not runs:
        raise InputError("there are no runs to show")
    networks = {path.resolve(): f for path, f in (networks or {}).items()}
    table = rows(runs, networks)
    images_of = cache(lambda name: images if images is not None else load(name).test)
    galleries = [_gallery(run, networks.get(run.path.resolve()), images_of) for run in runs]
    drawn = strokes([row.kind for row in table])
    parts = [
        Part(row, stroke.color, _warnings(run), _facts(run, row), _recipe(run), shown)
        for run, row, stroke, shown in zip(runs, table, drawn, galleries, strict=True)
    ]
    title = title or _title(table)
    html = _template().render(
        title=title,
        rows=table,
        columns=columns(table),
        common=[text for text in common(table) if text not in title],
        scored=any(row.clean is not None for row in table),
        asides=asides(table),
        unscored=any(row.clean is None for row in table),
        cost=curves.cost(table),
        training=curves.training(runs),
        parts=parts,
    )
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    whole(target, lambda file: file.write_text(html, encoding="utf-8", errors="replace"))
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


def _title(table: Sequence[Row]) -> str:
    data = {row.data for row in table}
    subject = table[0].name if len(table) == 1 else f"{len(table)} runs"
    return f"{subject} on {data.pop()}" if len(data) == 1 else subject


def _gallery(run: Run, f: nn.Module | None, images_of: Callable[[str], Source]) -> Gallery | None:
    """The gallery of a run, None without its network."""
    if f is None:
        return None
    config = run.config
    ball = read_ball(config["recipe"]["ball"])
    name = f"{ATTACK} within {ball_text(config['recipe']['ball'])}"
    try:
        if ball is None:
            raise InputError("its norm is not registered here")
        images, classes = images_of(config["data"]["name"]), config["data"]["classes"]
        return Gallery(name, gallery(f, images, classes, ball, attack(ATTACK, ball)))
    except (InputError, NonFinite) as error:
        return Gallery(name, missing=str(error))


def _warnings(run: Run) -> list[str]:
    """What went wrong in training, as the engine wrote it down."""
    return [
        f"{line['collapse']}{'; training was stopped' if line.get('stopped') else ''}"
        for line in run.metrics
        if line.get("collapse")
    ]


def _recipe(run: Run) -> list[Item]:
    return [item for item in outline(run.config["recipe"]) if item.name not in TOLD]


def _facts(run: Run, row: Row) -> list[tuple[str, str]]:
    config = run.config
    data, recipe = config["data"], config["recipe"]
    sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
    facts = [
        ("folder", run.path.name),
        ("data", f"{row.data}: {len(data['classes'])} classes, {sizes}"),
        ("model", f"{row.model}, {config['parameters']:,} parameters"),
        ("trained for", ball_text(recipe["ball"])),
        ("seed", str(config["seed"])),
        ("epochs", f"{row.epochs} of {row.planned}"),
        ("training time", clock(row.seconds or 0)),
        ("source", recipe.get("source", "")),
        ("note", recipe.get("note", "")),
        ("versions", ", ".join(f"{name} {text}" for name, text in config["versions"].items())),
    ]
    return [(name, text) for name, text in facts if text]
