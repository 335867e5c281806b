"""The figures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nuat.errors import InputError
from nuat.evaluation.intervals import wilson


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """What became of each image under each attack, alone.

    Attributes:
        ids: the images' places in their split.
        labels, predicted: the true class and the one given to the clean image.
        standing: for each attack, whether each image was classified rightly and withstood it; an
            attack's snapshots are beside it.
        seconds: for each attack, how long it took.
        ball, attacks, seed, network, versions: what the figures were made with; `network` is a
            fingerprint of its weights.
        parts: for each attack, for each of its parts: how many images came in and fell, forward and
            backward passes for each image that came in, seconds.
        notes: what a reader should know about the network and the attacks.
        search: how the network was build_inference_model.
        about: what else was said of the evaluation, such as the names of the data and the split.
    """

    ids: list[int]
    labels: list[int]
    predicted: list[int]
    standing: dict[str, list[bool]]
    seconds: dict[str, float]
    ball: str
    attacks: dict[str, Any]
    seed: int
    network: str
    versions: dict[str, str]
    parts: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def clean(self) -> float:
        """Share of images classified rightly."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return sum(label == guess for label, guess in pairs) / len(self.labels)

    def robust(self, name: str) -> float:
        """Share of images that withstood this attack."""
        return sum(self.standing[name]) / len(self.labels)

    def interval(self, name: str) -> tuple[float, float]:
        """Wilson's 95% interval of that share."""
        return wilson(sum(self.standing[name]), len(self.labels))

    @property
    def worst(self) -> float:
        """Share of images that withstood every attack."""
        every = zip(*self.standing.values(), strict=True)
        return sum(all(verdicts) for verdicts in every) / len(self.labels)

    def __repr__(self) -> str:
        """The figures: EvaluationResult(400 images, Linf(0.15): clean 83.2%, pgd-20 40.5%, worst 40.5%)."""
        shares = {"clean": self.clean} | {name: self.robust(name) for name in self.standing}
        shown = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        return f"EvaluationResult({len(self.ids)} images, {self.ball}: {shown}, worst {self.worst:.1%})"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: the fields, with counts, accuracies and intervals beside them."""
        names = list(self.standing)
        return {
            "images": len(self.ids),
            "clean": self.clean,
            "robust": {name: self.robust(name) for name in names},
            "worst": self.worst,
            "counts": {name: sum(self.standing[name]) for name in names},
            "wilson_95": {name: self.interval(name) for name in names},
            **asdict(self),
        }

    @staticmethod
    def from_dict(scores: Mapping[str, Any]) -> EvaluationResult:
        """The scores that `as_dict` wrote down. Raises InputError if a part is missing.

        Older scores do not say what they are about; that is empty then.
        """
        scores = {"about": {}, **scores}
        missing = [name for name in EvaluationResult.__dataclass_fields__ if name not in scores]
        if missing:
            raise InputError(
                f"these scores lack {', '.join(missing)}: made by another version; evaluate again"
            )
        return EvaluationResult(
            **{name: scores[name] for name in EvaluationResult.__dataclass_fields__}
        )
