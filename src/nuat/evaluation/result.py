"""The result of an evaluation: accuracies, intervals, and what they were measured with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from nuat.checkpoints.fields import (
    ANYTHING,
    COUNT,
    FLAG,
    MAX_COUNT,
    NOTHING,
    NUMBER,
    SECONDS,
    SEED,
    TEXT,
    check_fields,
    either,
    list_of,
    mapping_of,
    whole_number,
)
from nuat.errors import InputError
from nuat.evaluation.eight_bit import write_png_files
from nuat.evaluation.intervals import wilson
from nuat.evaluation.log import EvaluationLog
from nuat.evaluation.log_entry import FORMAT_VERSION
from nuat.evaluation.per_image import EvaluationRecord
from nuat.evaluation.request import EvaluationRequest
from nuat.runtime.checksums import with_checksum, without_checksum
from nuat.runtime.files import atomic_write


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """Clean and robust accuracy of a model, with the verdict on each image.

    Attributes:
        indices: the index of each evaluated image in its split.
        labels, predicted: the true class of each image, and the one predicted without an attack;
            the latter is -1 where the logits are NaN.
        robust: for each attack, whether each image is classified correctly and withstands the
            attack; the snapshots of an attack are listed as `NAME at STEP`.
        seconds: for each attack, the run time summed over its batches.
        ball: the threat model, such as `Linf(0.03)`.
        attacks: for each attack, its settings.
        seed: the seed of the attacks' noise and of the sampled images.
        model_fingerprint: a hash of the model's weights.
        versions: versions of nuat, torch, numpy and Python.
        parts: for each attack and each of its parts: `images` attacked, images `broken`, forward
            and backward passes per attacked image, `seconds`.
        robust_8bit: for each attack, whether each image is classified correctly, and its
            adversarial image too once it is rounded to 8 bits per pixel and channel, as a PNG keeps
            it; see `nuat.evaluation.eight_bit`. Empty in results of earlier versions.
        outside_8bit: for each attack, how many adversarial images that rounding moves out of the
            ball. They count in `robust_8bit` as all others.
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
    robust_8bit: dict[str, list[bool]] = field(default_factory=dict)
    outside_8bit: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    search_precision: str = "fp32"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def clean_accuracy(self) -> float:
        """Fraction of images that are classified correctly without an attack."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return sum(label == predicted for label, predicted in pairs) / len(self.labels)

    def robust_accuracy(self, name: str) -> float:
        """Fraction of images that are robust to the attack `name`."""
        return sum(self.robust[name]) / len(self.labels)

    def robust_accuracy_8bit(self, name: str) -> float:
        """Fraction of images that are robust to the adversarial images of `name` in 8 bits."""
        return sum(self.robust_8bit[name]) / len(self.labels)

    def confidence_interval(self, name: str) -> tuple[float, float]:
        """Wilson's 95 % interval of the robust accuracy under the attack `name`."""
        return wilson(sum(self.robust[name]), len(self.labels))

    @property
    def worst_case_accuracy(self) -> float:
        """Fraction of images that are robust to every attack."""
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
        """Return the content of scores.json: all fields, accuracies, counts, a checksum."""
        scores = {
            "format_version": FORMAT_VERSION,
            "num_images": len(self.indices),
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": {name: self.robust_accuracy(name) for name in self.robust},
            "robust_accuracy_8bit": {n: self.robust_accuracy_8bit(n) for n in self.robust_8bit},
            "worst_case_accuracy": self.worst_case_accuracy,
            "num_robust": {name: sum(verdicts) for name, verdicts in self.robust.items()},
            "wilson_95": {name: self.confidence_interval(name) for name in self.robust},
            **asdict(self),
        }
        return with_checksum(scores)

    @staticmethod
    def from_dict(scores: Mapping[str, Any], source: object = "the result") -> EvaluationResult:
        """Return the result that `to_dict` describes; `source` is what errors call it.

        Raises:
            InputError: the format has another version, or a field is missing or wrong.
        """
        if not isinstance(scores, Mapping):
            raise InputError(f"{source} is no JSON object: evaluate again")
        version = scores.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{source} has format_version {version}, but this nuat reads "
                f"{FORMAT_VERSION}: evaluate again"
            )
        names = [each.name for each in fields(EvaluationResult)]
        if missing := [name for name in names if name not in (*scores, *_ADDED_LATER)]:
            raise InputError(f"{source} lacks {', '.join(missing)}: evaluate again")
        check_fields(scores, _SCORES, source, optional=(*_OPTIONAL_METADATA, *_ADDED_LATER))
        images = {len(scores[name]) for name in ("indices", "labels", "predicted")}
        verdicts = [*scores["robust"].values(), *scores.get("robust_8bit", {}).values()]
        if len(images | {len(robust) for robust in verdicts}) > 1:
            raise InputError(f"the lists of {source} differ in length: evaluate again")
        try:
            without_checksum(scores, source)
        except InputError as error:
            raise InputError(f"{error}: evaluate again") from None
        return EvaluationResult(**{name: scores[name] for name in names if name in scores})


_INDICES = list_of(COUNT, low=1)
_SCORES = {
    "indices": _INDICES,
    "labels": _INDICES,
    "predicted": list_of(whole_number(-1, MAX_COUNT), low=1),
    "robust": mapping_of(list_of(FLAG)),
    "robust_8bit": mapping_of(list_of(FLAG)),
    "outside_8bit": mapping_of(COUNT),
    "seconds": mapping_of(SECONDS),
    "ball": TEXT,
    "attacks": mapping_of(ANYTHING),
    "seed": SEED,
    "model_fingerprint": TEXT,
    "versions": mapping_of(TEXT),
    "parts": mapping_of(mapping_of(mapping_of(NUMBER))),
    "notes": list_of(TEXT),
    "search_precision": TEXT,
    "metadata": mapping_of(ANYTHING),
    "metadata.data": either(TEXT, NOTHING),
    "metadata.split": either(TEXT, NOTHING),
    "metadata.model": either(TEXT, NOTHING),
}
"""The fields of scores.json (docs/file_formats.md)."""
_ADDED_LATER = ("robust_8bit", "outside_8bit")
"""Fields that files of earlier versions lack."""
_OPTIONAL_METADATA = ("metadata.data", "metadata.split", "metadata.model")


def summarize(
    request: EvaluationRequest, record: EvaluationRecord, notes: Sequence[str]
) -> EvaluationResult:
    """Return the result of an evaluation; `notes` come before those on its outcome."""
    config, clean = request.config(), record.clean
    notes = [*notes]
    if config["search_precision"] == "bf16":
        notes.append(
            "the attacks searched in bfloat16, which is weaker than float32; every adversarial "
            "image is verified in float32"
        )
    return EvaluationResult(
        indices=list(record.indices),
        labels=[clean.label[index] for index in record.indices],
        predicted=[clean.predicted[index] for index in record.indices],
        robust=record.robust(),
        robust_8bit=record.robust_8bit(),
        outside_8bit=record.outside_8bit(request.ball),
        seconds=record.seconds(),
        ball=config["ball"],
        attacks=config["attacks"],
        seed=config["seed"],
        model_fingerprint=config["model_fingerprint"],
        versions=config["versions"],
        parts=record.part_statistics(),
        notes=[*notes, *record.notes()],
        search_precision=config["search_precision"],
        metadata=config["metadata"],
    )


def write_results(
    folder: Path, log: EvaluationLog, record: EvaluationRecord, result: EvaluationResult
) -> None:
    """Write verdicts.jsonl and scores.json; if images were stored, also as safetensors and PNG."""
    verdicts = "".join(json.dumps(verdict) + "\n" for verdict in record.verdicts())
    atomic_write(folder / "verdicts.jsonl", lambda part: part.write_text(verdicts))
    if stored := log.adversarial_images():
        tensors = {}
        for name, images in stored.items():
            tensors[f"{name}/index"] = torch.tensor(sorted(images))
            tensors[f"{name}/x_adv"] = torch.stack([images[index] for index in sorted(images)])
            write_png_files(folder, name, images)
        content = save(tensors, {"format_version": str(FORMAT_VERSION)})
        atomic_write(folder / "adversarial.safetensors", lambda part: part.write_bytes(content))
    scores = json.dumps(result.to_dict()) + "\n"
    atomic_write(folder / "scores.json", lambda part: part.write_text(scores))
