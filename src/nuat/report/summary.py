"""What the page says about one run or evaluation besides its accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nuat.checkpoints.run import Run
from nuat.methods.cost import STANDARD_STEP
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.naming import value_text
from nuat.report.rows import Row
from nuat.runtime.progress import format_duration


def list_warnings(item: ReportItem) -> list[str]:
    """Return the warnings about overfitting that the training logged."""
    metrics = [] if isinstance(item, EvaluationFolder) else item.metrics
    return [
        line["catastrophic_overfitting"] + ("; training was stopped" if line.get("stopped") else "")
        for line in metrics
        if line.get("catastrophic_overfitting")
    ]


def list_recipe(described: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of the fields of a recipe that `list_facts` does not show."""
    hidden = ("is", "name", "source", "note")
    return [(name, value_text(value)) for name, value in described.items() if name not in hidden]


def list_facts(item: ReportItem, row: Row) -> list[tuple[str, str]]:
    """Return the names and values of what is known about a run or an evaluation."""
    facts = _evaluation_facts(item) if isinstance(item, EvaluationFolder) else _run_facts(item, row)
    facts.insert(-1, ("robust accuracy in 8 bits", _eight_bit_text(row)))
    return [(name, text) for name, text in facts if text]


def _run_facts(run: Run, row: Row) -> list[tuple[str, str]]:
    config = run.config
    data, recipe = config["data"], config["recipe"]
    sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
    return [
        ("folder", run.path.name),
        ("data", f"{row.data}: {len(data['classes'])} classes, {sizes}"),
        ("model", f"{row.model}, {config['parameters']:,} parameters"),
        ("trained for", value_text(recipe["ball"])),
        ("seed", str(config["seed"])),
        ("epochs", f"{row.epochs} of {row.total_epochs}"),
        ("training time", format_duration(row.seconds or 0)),
        ("cost of a step", _cost_text(row)),
        ("peak memory", f"{row.peak_mib:,.0f} MiB of the GPU" if row.peak_mib else ""),
        ("source", recipe.get("source", "")),
        ("note", recipe.get("note", "")),
        ("versions", _versions(config["versions"])),
    ]


def _eight_bit_text(row: Row) -> str:
    """The robust accuracy under each attack once its images are rounded to 8 bits."""
    if row.result is None or not row.result.robust_8bit:
        return ""
    shares = [
        f"{name} {100 * row.result.robust_accuracy_8bit(name):.1f} %"
        for name in row.result.robust_8bit
    ]
    return f"{', '.join(shares)}: adversarial images as a PNG file keeps them, classified again"


def _cost_text(row: Row) -> str:
    if row.cost is None:
        return ""
    standard_epochs = row.epochs * row.cost / STANDARD_STEP
    return (
        f"{row.cost:.1f} forward passes of the batch; so far as much as {standard_epochs:.1f} "
        "epochs of standard training"
    )


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
