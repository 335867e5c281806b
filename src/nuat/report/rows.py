"""Rows of the table: the accuracies and costs of each run and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from nuat.evaluation import EvaluationResult
from nuat.nn.fingerprint import fingerprint
from nuat.report.evaluations import choose_evaluation, image_ids, initial_points
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.naming import name_items, value_text


@dataclass(frozen=True)
class Row:
    """One run or evaluation; accuracies lie between 0 and 1, and None means unknown.

    Attributes:
        name: the name of the recipe or folder, with the differences from items of the same name.
        group: the name without the seed.
        ball: the threat model of the evaluation or, without one, of the recipe.
        images: the number of evaluated images, of the split `split`.
        robust_accuracy: by attack.
        val_clean, val_robust: validation accuracies of the last epoch.
        cost: cost of a training step, in forward passes of the batch.
        seconds: training time.
        epochs, total_epochs: epochs so far, and epochs of the recipe.
        image_ids: the index and the true class of each evaluated image.
        not_shown: descriptions of the other evaluations of the run.
        initial_points: the start of each attack that has one.
        peak_mib: peak memory of training on the GPU, in MiB.
        result: the evaluation that the accuracies are of.
    """

    name: str
    group: str
    data: str | None
    model: str | None
    ball: str
    split: str | None = None
    images: int | None = None
    clean_accuracy: float | None = None
    robust_accuracy: Mapping[str, float] = field(default_factory=dict)
    worst_case_accuracy: float | None = None
    val_clean: float | None = None
    val_robust: float | None = None
    cost: float | None = None
    seconds: float | None = None
    epochs: int = 0
    total_epochs: int = 0
    image_ids: frozenset[tuple[int, int]] = frozenset()
    not_shown: Sequence[str] = ()
    initial_points: Mapping[str, str] = field(default_factory=dict)
    peak_mib: float | None = None
    result: EvaluationResult | None = None

    @property
    def unfinished(self) -> str:
        """`12 of 30 epochs`, or "" for a finished run."""
        finished = self.epochs >= self.total_epochs
        return "" if finished else f"{self.epochs} of {self.total_epochs} epochs"

    @property
    def comparison_key(self) -> tuple[object, ...]:
        """What must be equal for two worst-case accuracies to be comparable."""
        attacks = frozenset(self.robust_accuracy)
        return self.data, self.ball, self.split, self.images, self.image_ids, attacks


def build_rows(
    items: Sequence[ReportItem], models: Mapping[Path, nn.Module] | None = None
) -> list[Row]:
    """Return a row for each item, in the same order.

    Args:
        items: runs and evaluations.
        models: the loaded models by run folder; evaluations of other weights are not shown.
    """
    fingerprints = {path.resolve(): fingerprint(model) for path, model in (models or {}).items()}
    return [
        _build_row(item, group, name, fingerprints.get(item.path.resolve()))
        for item, (group, name) in zip(items, name_items(items), strict=True)
    ]


def _build_row(item: ReportItem, group: str, name: str, model_fingerprint: str | None) -> Row:
    if isinstance(item, EvaluationFolder):
        metadata = item.scores.metadata
        row = Row(name, group, metadata.get("data"), metadata.get("model"), item.scores.ball)
        return _with_accuracies(row, item.scores)
    config, metrics = item.config, item.metrics
    last = metrics[-1] if metrics else {}
    result, not_shown = choose_evaluation(item, model_fingerprint)
    row = Row(
        name=name,
        group=group,
        data=config["data"]["name"],
        model=config["model"],
        ball=value_text(config["recipe"]["ball"]),
        val_clean=last.get("val_clean"),
        val_robust=last.get("val_robust"),
        cost=metrics[0].get("forward_equivalents") if metrics else None,
        seconds=last.get("seconds"),
        epochs=last.get("epoch", 0),
        total_epochs=config["recipe"]["epochs"],
        not_shown=not_shown,
        peak_mib=max((line["peak_mib"] for line in metrics if "peak_mib" in line), default=None),
    )
    return _with_accuracies(row, result) if result else row


def _with_accuracies(row: Row, result: EvaluationResult) -> Row:
    return replace(
        row,
        result=result,
        ball=result.ball,
        split=result.metadata.get("split"),
        images=len(result.indices),
        image_ids=image_ids(result),
        initial_points=initial_points(result),
        clean_accuracy=result.clean_accuracy,
        robust_accuracy={name: result.robust_accuracy(name) for name in result.robust},
        worst_case_accuracy=result.worst_case_accuracy if result.robust else None,
    )
