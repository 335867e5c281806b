"""The result of an evaluation: accuracies, intervals, and what they were measured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nuat.errors import InputError
from nuat.evaluation.intervals import wilson

FORMAT_VERSION = 1
"""Version of every file in an evaluation folder; see docs/file_formats.md."""


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Clean and robust accuracy of a model, with the verdict on each image.

    Attributes:
        indices: the index of each evaluated image in its split.
        labels, predicted: the true class of each image, and the class predicted for the clean image.
        robust: for each attack, whether each image is classified correctly and withstands the
            attack; the snapshots of an attack are listed as `NAME at STEP`.
        seconds: for each attack, the run time summed over its batches.
        ball: the threat model, such as `Linf(0.03)`.
        attacks: for each attack, its settings.
        seed: the seed of the attacks' noise and of the sampled images.
        model_fingerprint: a hash of the model's weights.
        versions: versions of nuat, torch and Python.
        parts: for each attack and each of its parts: `images` attacked, images `broken`, forward
            and backward passes per attacked image, `seconds`.
        notes: warnings that a reader of these figures should know.
        search_precision: precision of the search, `fp32` or `bf16`.
        metadata: what the caller stored, such as the names of the data, the split and the model.
    """

    indices: list[int]
    labels: list[int]
    predicted: list[int]
    robust: dict[str, list[bool]]
    seconds: dict[str, float]
    ball: str
    attacks: dict[str, Any]
    seed: int
    model_fingerprint: str
    versions: dict[str, str]
    parts: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    search_precision: str = "fp32"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def clean_accuracy(self) -> float:
        """Share of images that are classified correctly without an attack."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return sum(label == predicted for label, predicted in pairs) / len(self.labels)

    def robust_accuracy(self, name: str) -> float:
        """Share of images that are classified correctly and withstand the attack `name`."""
        return sum(self.robust[name]) / len(self.labels)

    def confidence_interval(self, name: str) -> tuple[float, float]:
        """Wilson's 95 % interval of the robust accuracy under the attack `name`."""
        return wilson(sum(self.robust[name]), len(self.labels))

    @property
    def worst_case_accuracy(self) -> float:
        """Share of images that are classified correctly and withstand every attack."""
        per_image = zip(*self.robust.values(), strict=True)
        return sum(map(all, per_image)) / len(self.labels)

    def __repr__(self) -> str:
        """Show the accuracies: `EvaluationResult(400 images, Linf(0.15): clean 83.2%, ...)`."""
        accuracies = {"clean": self.clean_accuracy}
        accuracies |= {name: self.robust_accuracy(name) for name in self.robust}
        accuracies["worst case"] = self.worst_case_accuracy
        text = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items())
        return f"EvaluationResult({len(self.indices)} images, {self.ball}: {text})"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of scores.json: all fields, accuracies, counts and intervals."""
        return {
            "format_version": FORMAT_VERSION,
            "num_images": len(self.indices),
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": {name: self.robust_accuracy(name) for name in self.robust},
            "worst_case_accuracy": self.worst_case_accuracy,
            "num_robust": {name: sum(verdicts) for name, verdicts in self.robust.items()},
            "wilson_95": {name: self.confidence_interval(name) for name in self.robust},
            **asdict(self),
        }

    @staticmethod
    def from_dict(scores: Mapping[str, Any]) -> EvaluationResult:
        """Read what `to_dict` returns.

        Raises:
            InputError: the format has another version, or a field is missing.
        """
        version = scores.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"these scores have format_version {version}, but this nuat reads "
                f"{FORMAT_VERSION}: evaluate again"
            )
        names = [each.name for each in fields(EvaluationResult)]
        if missing := [name for name in names if name not in scores]:
            raise InputError(f"these scores lack {', '.join(missing)}: evaluate again")
        return EvaluationResult(**{name: scores[name] for name in names})
