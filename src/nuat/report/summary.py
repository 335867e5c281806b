"""What a page says of one run or evaluation, beside its figures."""

from __future__ import annotations

from collections.abc import Mapping

from nuat.checkpoints.run import Run
from nuat.report.folders import Shown, VerdictFolder
from nuat.report.naming import ball_text
from nuat.report.recipe_tree import Item, outline
from nuat.report.rows import Row
from nuat.runtime.progress import format_duration

TOLD = ("name", "source", "note")
"""Fields of a recipe that have a place of their own on the page."""


def warnings(shown: Shown) -> list[str]:
    """What went wrong in training, as the engine wrote it down."""
    return [
        f"{line['collapse']}{'; training was stopped' if line.get('stopped') else ''}"
        for line in shown.metrics
        if line.get("collapse")
    ]


def recipe(shown: Shown) -> list[Item]:
    """The recipe of a run, as a nested list."""
    if isinstance(shown, VerdictFolder):
        return []
    return [item for item in outline(shown.config["recipe"]) if item.name not in TOLD]


def facts(shown: Shown, row: Row) -> list[tuple[str, str]]:
    """Names and values, of those that are known."""
    found = _of_verdicts(shown) if isinstance(shown, VerdictFolder) else _of_run(shown, row)
    return [(name, text) for name, text in found if text]


def _of_run(run: Run, row: Row) -> list[tuple[str, str]]:
    config = run.config
    data, recipe = config["data"], config["recipe"]
    sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
    return [
        ("folder", run.path.name),
        ("data", f"{row.data}: {len(data['classes'])} classes, {sizes}"),
        ("model", f"{row.model}, {config['parameters']:,} parameters"),
        ("trained for", ball_text(recipe["ball"])),
        ("seed", str(config["seed"])),
        ("epochs", f"{row.epochs} of {row.planned}"),
        ("training time", format_duration(row.seconds or 0)),
        ("source", recipe.get("source", "")),
        ("note", recipe.get("note", "")),
        ("versions", _versions(config["versions"])),
    ]


def _of_verdicts(folder: VerdictFolder) -> list[tuple[str, str]]:
    scores = folder.scores
    return [
        ("folder", folder.name),
        ("data", str(scores.metadata.get("data") or "not said")),
        ("split", str(scores.metadata.get("split") or "not said")),
        ("model", str(scores.metadata.get("model") or "not said")),
        ("images", f"{len(scores.indices):,}"),
        ("attacked within", scores.ball),
        ("attacks", ", ".join(scores.attacks)),
        ("attacking time", format_duration(sum(scores.seconds.values()))),
        ("seed", str(scores.seed)),
        ("search", scores.search_precision),
        ("weights", f"{scores.model_fingerprint} (fingerprint)"),
        *(("note", note) for note in scores.notes),
        ("versions", _versions(scores.versions)),
    ]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in versions.items())
