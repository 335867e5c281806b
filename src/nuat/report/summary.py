"""What the page says about one run or evaluation besides its accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nuat.checkpoints.run import Run
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.naming import ball_text, call_text, value_text
from nuat.report.rows import Row
from nuat.runtime.progress import format_duration
from nuat.threat_models import norms


def list_warnings(item: ReportItem) -> list[str]:
    """Return the warnings about overfitting that the training logged."""
    metrics = [] if isinstance(item, EvaluationFolder) else item.metrics
    return [
        line["catastrophic_overfitting"] + ("; training was stopped" if line.get("stopped") else "")
        for line in metrics
        if line.get("catastrophic_overfitting")
    ]


def recipe_tree(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a described dataclass as nested nodes of name, text and children."""
    return [_node(name, value) for name, value in described.items() if name != "is"]


def _node(name: str, value: Any) -> dict[str, Any]:
    text, items = "", []
    if not isinstance(value, Mapping):
        text = value_text(value)
    elif "is" not in value:
        items = recipe_tree(value)
    elif value["is"] in [norm.__name__ for norm in norms.values()]:
        text = ball_text(value)
    elif any(isinstance(part, Mapping) for part in value.values()):
        text, items = str(value["is"]), recipe_tree(value)
    else:
        text = call_text(value)
    return {"name": name, "text": text, "children": items}


def list_facts(item: ReportItem, row: Row) -> list[tuple[str, str]]:
    """Return the names and values of what is known about a run or an evaluation."""
    facts = _evaluation_facts(item) if isinstance(item, EvaluationFolder) else _run_facts(item, row)
    return [(name, text) for name, text in facts if text]


def _run_facts(run: Run, row: Row) -> list[tuple[str, str]]:
    config = run.config
    data, recipe = config["data"], config["recipe"]
    sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
    return [
        ("folder", run.path.name),
        ("data", f"{row.data}: {len(data['classes'])} classes, {sizes}"),
        ("model", f"{row.model}, {config['parameters']:,} parameters"),
        ("trained for", ball_text(recipe["ball"])),
        ("seed", str(config["seed"])),
        ("epochs", f"{row.epochs} of {row.total_epochs}"),
        ("training time", format_duration(row.seconds or 0)),
        ("source", recipe.get("source", "")),
        ("note", recipe.get("note", "")),
        ("versions", _versions(config["versions"])),
    ]


def _evaluation_facts(folder: EvaluationFolder) -> list[tuple[str, str]]:
    scores = folder.scores
    return [
        ("folder", folder.name),
        *((key, str(scores.metadata.get(key) or "unknown")) for key in ("data", "split", "model")),
        ("images", f"{len(scores.indices):,}"),
        ("threat model", scores.ball),
        ("attacks", ", ".join(scores.attacks)),
        ("attack time", format_duration(sum(scores.seconds.values()))),
        ("seed", str(scores.seed)),
        ("search precision", scores.search_precision),
        ("weights", f"{scores.model_fingerprint} (fingerprint)"),
        *(("note", note) for note in scores.notes),
        ("versions", _versions(scores.versions)),
    ]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in versions.items())
