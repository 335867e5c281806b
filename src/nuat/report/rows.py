"""Runs and evaluations in figures: a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from nuat.nn.fingerprint import fingerprint
from nuat.report.evaluations import Evaluation, of_run
from nuat.report.folders import Shown, VerdictFolder
from nuat.report.naming import Name, ball_text, names


@dataclass(frozen=True)
class Row:
    """One run or evaluation in figures; shares are between 0 and 1, None is unknown.

    Attributes:
        name: the recipe's or the folder's, with more beside it if another row has the same.
        kind: the name without the seed.
        data, model: by name.
        ball: the threat model of the scores, or else the recipe's.
        split: the split whose images were attacked.
        images: how many they were.
        clean, robust, worst: accuracies, `robust` by attack.
        val_clean, val_robust: of the last epoch, on the validation split.
        cost: forward-equivalents of a training step.
        seconds: of training.
        epochs, planned: done so far, and in all.
        places: the place and the true class of each image.
        left_out: evaluations that are there too and not shown, in words.
    """

    name: str
    kind: str
    data: str | None
    model: str | None
    ball: str
    split: str | None = None
    images: int | None = None
    clean: float | None = None
    robust: Mapping[str, float] = field(default_factory=dict)
    worst: float | None = None
    val_clean: float | None = None
    val_robust: float | None = None
    cost: float | None = None
    seconds: float | None = None
    epochs: int = 0
    planned: int = 0
    places: frozenset[tuple[int, int]] = frozenset()
    left_out: Sequence[str] = ()

    @property
    def unfinished(self) -> str:
        """`12 of 30 epochs`; nothing for a run that is done."""
        done = self.epochs >= self.planned
        return "" if done else f"{self.epochs} of {self.planned} epochs"

    @property
    def comparable(self) -> tuple[object, ...]:
        """What must be the same for two worst accuracies to be compared."""
        attacks = frozenset(self.robust)
        return self.data, self.ball, self.split, self.images, self.places, attacks


def rows(runs: Sequence[Shown], networks: Mapping[Path, nn.Module] | None = None) -> list[Row]:
    """A row for each run or folder of verdicts, in their order.

    Evaluations of other weights than those of a run's network, if that is given, are left out.
    """
    weights = {path.resolve(): fingerprint(f) for path, f in (networks or {}).items()}
    named = zip(runs, names(runs), strict=True)
    return [_row(run, name, weights.get(run.path.resolve())) for run, name in named]


def _row(run: Shown, name: Name, network: str | None) -> Row:
    if isinstance(run, VerdictFolder):
        shown = Evaluation.of(run.name, run.scores)
        model = run.scores.metadata.get("model")
        return _with_figures(Row(str(name), name.kind, shown.data, model, shown.ball), shown)
    config, metrics = run.config, run.metrics
    last = metrics[-1] if metrics else {}
    shown, left_out = of_run(run, network)
    row = Row(
        name=str(name),
        kind=name.kind,
        data=config["data"]["name"],
        model=config["model"],
        ball=ball_text(config["recipe"]["ball"]),
        val_clean=last.get("val_clean"),
        val_robust=last.get("val_robust"),
        cost=config.get("forward_equivalents"),
        seconds=last.get("seconds"),
        epochs=last.get("epoch", 0),
        planned=config["recipe"]["epochs"],
        left_out=left_out,
    )
    return _with_figures(row, shown) if shown else row


def _with_figures(row: Row, shown: Evaluation) -> Row:
    return replace(
        row,
        ball=shown.ball,
        split=shown.split,
        images=len(shown.images),
        places=shown.images,
        clean=shown.share(shown.right),
        robust={attack: shown.share(places) for attack, places in shown.standing.items()},
        worst=shown.worst,
    )
