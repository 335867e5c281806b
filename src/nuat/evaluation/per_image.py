"""What an evaluation found out about each image, collected from the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nuat.attacks import Attack
from nuat.data.hashing import combine_hashes
from nuat.errors import InputError
from nuat.evaluation.log_entry import FORMAT_VERSION, AttackOutcome, LogEntry
from nuat.evaluation.sanity_checks import check_outcome
from nuat.threat_models import SLACK, Ball

Parts = Mapping[str, Attack]
"""The parts of an attack by name, in the order in which they run."""


@dataclass(frozen=True)
class CleanPredictions:
    """Predictions on the clean images, by index.

    Attributes:
        label: the true class.
        predicted: the predicted class; -1 where the logits are NaN, so that no class is right.
        margin: max_{j != y} z_j - z_y, negative where the image is classified correctly; None where
            it is not finite.
        targets: the target classes of each part that has some, in order, by the names of the attack
            and of the part.
        hashes: a hash of the image and its label.
    """

    label: dict[int, int] = field(default_factory=dict)
    predicted: dict[int, int] = field(default_factory=dict)
    margin: dict[int, float | None] = field(default_factory=dict)
    targets: dict[int, dict[tuple[str, str], list[int]]] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)

    def is_correct(self, index: int) -> bool:
        """Return whether the image is classified correctly."""
        return self.label[index] == self.predicted[index]

    def content_hash(self) -> str:
        """Return a hash of all images and labels, by index."""
        return combine_hashes(self.hashes[index] for index in sorted(self.hashes))


class AttackHistory:
    """The outcomes of all runs of one attack for each image, by parts and runs in order."""

    def __init__(self, name: str, parts: Parts, entries: Iterable[LogEntry]):
        self.name, self.parts, order = (
            name,
            parts,
            {part: position for position, part in enumerate(parts)},
        )
        own = [entry for entry in entries if entry.key.attack == name]
        if unknown := {entry.key.part for entry in own} - order.keys():
            raise _damaged_log(f"{name} has no part {min(unknown)!r}")
        own.sort(key=lambda entry: (order[entry.key.part], entry.key.run))
        self.runs: dict[int, list[tuple[str, int, AttackOutcome]]] = {}
        self.robust_at: dict[int, dict[int, bool]] = {}
        for entry in own:
            for row, outcome in enumerate(entry.outcomes):
                run = entry.key.part, entry.key.run, outcome
                self.runs.setdefault(outcome.index, []).append(run)
                robust_at = self.robust_at.setdefault(outcome.index, {})
                for step, robust in entry.snapshots.items():
                    robust_at[step] = robust_at.get(step, True) and robust[row]

    def broken_by(self, index: int) -> tuple[str, int, AttackOutcome] | None:
        """Return the part, the run and the outcome of the first run that broke the image."""
        return next((run for run in self.runs.get(index, []) if run[2].adversarial), None)

    def is_robust(self, index: int, clean: CleanPredictions) -> bool:
        """Return whether the image is classified correctly and no run broke it."""
        return clean.is_correct(index) and self.broken_by(index) is None

    def is_robust_8bit(self, index: int, clean: CleanPredictions) -> bool:
        """Return whether the image is classified correctly, and its adversarial image in 8 bits."""
        success = self.broken_by(index)
        return clean.is_correct(index) and (success is None or not success[2].adversarial_8bit)

    def is_robust_at(self, index: int, step: int, clean: CleanPredictions) -> bool:
        """Return whether the image is classified correctly and robust at a snapshot's iterate."""
        return clean.is_correct(index) and self.robust_at.get(index, {}).get(step, True)

    def record(self, index: int, clean: CleanPredictions) -> dict[str, Any]:
        """Return the outcome of this attack for an image, as verdicts.jsonl has it."""
        runs, success = self.runs.get(index, []), self.broken_by(index)
        found: dict[str, Any] = {
            "robust": self.is_robust(index, clean),
            "robust_8bit": self.is_robust_8bit(index, clean),
            "broken_by": None,
            "target": None,
            "restart": None,
            "step": None,
            "forwards": sum(outcome.forwards for _, _, outcome in runs),
            "backwards": sum(outcome.backwards for _, _, outcome in runs),
            "distance": None,
            "distance_8bit": None,
        }
        if success is None:
            margins = [outcome.margin for _, _, outcome in runs if outcome.margin is not None]
            return found | {"margin": max(margins, default=None)}
        part, run, outcome = success
        rank, restart = divmod(run, self.parts[part].restarts)
        targets = clean.targets[index].get((self.name, part), [])
        if targets and rank >= len(targets):
            raise _damaged_log(f"{part} has no run {run}")
        target = targets[rank] if targets else None
        return found | {
            "broken_by": part,
            "target": target,
            "restart": restart,
            "step": outcome.step,
            "distance": outcome.distance,
            "distance_8bit": outcome.distance_8bit,
            "margin": outcome.margin,
        }


@dataclass(frozen=True)
class EvaluationRecord:
    """Everything that an evaluation found out.

    Attributes:
        indices: the images, in the order requested.
        clean: the predictions on the clean images.
        parts: for each attack, its parts.
        entries: the entries of the log.
    """

    indices: Sequence[int]
    clean: CleanPredictions
    parts: Mapping[str, Parts]
    entries: Sequence[LogEntry]

    @cached_property
    def histories(self) -> dict[str, AttackHistory]:
        """The history of each attack."""
        return {
            name: AttackHistory(name, parts, self.entries) for name, parts in self.parts.items()
        }

    def verdicts(self) -> list[dict[str, Any]]:
        """Return the records of verdicts.jsonl, by index; they do not depend on the batch size."""
        return [
            {
                "format_version": FORMAT_VERSION,
                "index": index,
                "label": self.clean.label[index],
                "predicted": self.clean.predicted[index],
                "margin": self.clean.margin[index],
                "attacks": {
                    name: history.record(index, self.clean)
                    for name, history in self.histories.items()
                },
            }
            for index in sorted(self.indices)
        ]

    def robust(self) -> dict[str, list[bool]]:
        """Return for each attack and each of its snapshots whether each image is robust."""
        robust = {}
        for name, history in self.histories.items():
            steps = {step for part in history.parts.values() for step in part.snapshots}
            for step in sorted(steps):
                robust[f"{name} at {step}"] = [
                    history.is_robust_at(index, step, self.clean) for index in self.indices
                ]
            robust[name] = [history.is_robust(index, self.clean) for index in self.indices]
        return robust

    def robust_8bit(self) -> dict[str, list[bool]]:
        """Return for each attack whether each image withstands its adversarial image in 8 bits."""
        return {
            name: [history.is_robust_8bit(index, self.clean) for index in self.indices]
            for name, history in self.histories.items()
        }

    def outside_8bit(self, ball: Ball) -> dict[str, int]:
        """Return for each attack how many adversarial images are outside of the ball in 8 bits."""
        outside = {}
        for name, history in self.histories.items():
            successes = [history.broken_by(index) for index in self.indices]
            distances = [success[2].distance_8bit for success in successes if success is not None]
            outside[name] = sum(d is None or d > ball.eps + SLACK for d in distances)
        return outside

    def seconds(self) -> dict[str, float]:
        """Return the run time of each attack, summed over its batches."""
        return {
            name: sum(entry.seconds for entry in self.entries if entry.key.attack == name)
            for name in self.parts
        }

    def part_statistics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return counts, passes per image and seconds of each part of each attack."""
        return {
            name: {
                part: _statistics([e for e in self.entries if e.key[:2] == (name, part)])
                for part in parts
            }
            for name, parts in self.parts.items()
        }

    def notes(self) -> list[str]:
        """Return what a reader of the accuracies should know about the outcome."""
        notes = []
        if undefined := sum(self.clean.predicted[index] < 0 for index in self.indices):
            notes.append(
                f"the logits of {undefined} of {len(self.indices)} images are NaN or infinite: "
                "these images count as misclassified"
            )
        for name, parts in self.parts.items():
            runs = [self.histories[name].broken_by(index) for index in self.indices]
            successes = [run for run in runs if run is not None]
            broken = {part: sum(success[0] == part for success in successes) for part in parts}
            by_restarts = sum(run % parts[part].restarts > 0 for part, run, _ in successes)
            found = check_outcome(len(self.indices), broken, by_restarts)
            found += self._nan_notes(name, [outcome for _, _, outcome in successes])
            notes += [f"{name}: {note}" for note in found]
        return notes

    def _nan_notes(self, name: str, successes: Sequence[AttackOutcome]) -> list[str]:
        """Return notes on NaN logits and gradients that the attack `name` came upon."""
        notes = []
        if undefined := sum(outcome.margin is None for outcome in successes):
            notes.append(
                f"the logits of {undefined} adversarial images are NaN or infinite: these images "
                "count as broken"
            )
        bad = sum(entry.bad_gradients for entry in self.entries if entry.key.attack == name)
        if bad:
            notes.append(
                f"{bad} input gradients, one per image and step, had NaN or infinite entries; NaN "
                "counts as 0, so the attack may be weaker than it looks"
            )
        return notes


def _damaged_log(reason: str) -> InputError:
    return InputError(
        f"the log of this evaluation is damaged ({reason}): delete its folder, and evaluate again"
    )


def _statistics(entries: Sequence[LogEntry]) -> dict[str, float]:
    outcomes = [outcome for entry in entries for outcome in entry.outcomes]
    images = len({outcome.index for outcome in outcomes})
    return {
        "images": images,
        "broken": len({outcome.index for outcome in outcomes if outcome.adversarial}),
        "forwards": round(sum(outcome.forwards for outcome in outcomes) / max(images, 1), 2),
        "backwards": round(sum(outcome.backwards for outcome in outcomes) / max(images, 1), 2),
        "seconds": round(sum(entry.seconds for entry in entries), 3),
    }
