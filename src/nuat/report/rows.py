"""Runs in figures: a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nuat.evaluate import Scores
from nuat.report.naming import Name, ball_text, names
from nuat.runs import Run


@dataclass(frozen=True)
class Row:
    """One run in figures; shares are between 0 and 1, None is unknown.

    Attributes:
        name: the recipe's, with more beside it if another run has the same.
        kind: the name without the seed.
        data, model: by name.
        ball: the threat model of the scores, or else the recipe's.
        split: the name of the score file that the figures come from.
        images: how many images were attacked.
        clean, robust, worst: accuracies, `robust` by attack.
        val_clean, val_robust: of the last epoch, on the validation split.
        cost: forward-equivalents of a training step.
        seconds: of training.
        epochs, planned: done so far, and in all.
    """

    name: str
    kind: str
    data: str
    model: str
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

    @property
    def unfinished(self) -> str:
        """`12 of 30 epochs`; nothing for a run that is done."""
        done = self.epochs >= self.planned
        return "" if done else f"{self.epochs} of {self.planned} epochs"

    @property
    def comparable(self) -> tuple[object, ...]:
        """What must be the same for two worst accuracies to be compared."""
        return self.data, self.ball, self.split, self.images, frozenset(self.robust)


def rows(runs: Sequence[Run]) -> list[Row]:
    """A row for each run, in their order."""
    return [_row(run, name) for run, name in zip(runs, names(runs), strict=True)]


def _row(run: Run, name: Name) -> Row:
    config, metrics = run.config, run.metrics
    last = metrics[-1] if metrics else {}
    split, scores = _scores(run)
    return Row(
        name=str(name),
        kind=name.kind,
        data=config["data"]["name"],
        model=config["model"],
        ball=scores.ball if scores else ball_text(config["recipe"]["ball"]),
        split=split,
        images=len(scores.ids) if scores else None,
        clean=scores.clean if scores else None,
        robust={each: scores.robust(each) for each in scores.standing} if scores else {},
        worst=scores.worst if scores and scores.standing else None,
        val_clean=last.get("val_clean"),
        val_robust=last.get("val_robust"),
        cost=config.get("forward_equivalents"),
        seconds=last.get("seconds"),
        epochs=last.get("epoch", 0),
        planned=config["recipe"]["epochs"],
    )


def _scores(run: Run) -> tuple[str | None, Scores | None]:
    """The evaluation of the most images and its name; of several, the last by name."""
    found = {name: Scores.from_dict(scores) for name, scores in run.scores.items()}
    if not found:
        return None, None
    name = max(found, key=lambda name: (len(found[name].ids), name))
    return name, found[name]
