"""StartAt the journal to what a reader wants: one record for each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nuat.attacks import Attack
from nuat.evaluation.log import AttackOutcome, LogEntry
from nuat.evaluation.sanity_checks import check_outcome

Parts = Mapping[str, Attack]
"""The parts of an attack, by name, in order."""


@dataclass(frozen=True)
class CleanPredictions:
    """What the network says of the clean images, by id.

    Attributes:
        label: the true class.
        predicted: the class given.
        lead: the lead of the best other class over the true one; below 0 where it is right.
        ranking: the other classes, likeliest first, as many as are aimed at.
    """

    label: dict[int, int]
    predicted: dict[int, int]
    lead: dict[int, float]
    ranking: dict[int, list[int]]

    def right(self, image: int) -> bool:
        """Whether the image is classified rightly."""
        return self.label[image] == self.predicted[image]


class ImageHistory:
    """What an attack's runs did to each image, in the order of parts and runs."""

    def __init__(self, name: str, parts: Parts, lines: Iterable[LogEntry]):
        self.parts, places = parts, {part: place for place, part in enumerate(parts)}
        mine = sorted(
            (line for line in lines if line.attack == name),
            key=lambda line: (places[line.part], line.run),
        )
        self.runs: dict[int, list[tuple[str, int, AttackOutcome]]] = {}
        self.stood_at: dict[int, dict[int, bool]] = {}
        for line in mine:
            for place, outcome in enumerate(line.outcomes):
                self.runs.setdefault(outcome.id, []).append((line.part, line.run, outcome))
                at = self.stood_at.setdefault(outcome.id, {})
                for k, stood in line.snapshots.items():
                    at[int(k)] = at.get(int(k), True) and stood[place]

    def fell_to(self, image: int) -> tuple[str, int, AttackOutcome] | None:
        """The part, the run and the outcome that the image fell to."""
        return next((run for run in self.runs.get(image, []) if run[2].fallen), None)

    def stands(self, image: int, clean: CleanPredictions) -> bool:
        """Whether the image is classified rightly and fell to nothing."""
        return clean.right(image) and self.fell_to(image) is None

    def stood(self, image: int, snapshot: int, clean: CleanPredictions) -> bool:
        """The same for the iterate at a snapshot."""
        return clean.right(image) and self.stood_at.get(image, {}).get(snapshot, True)

    def record(self, image: int, clean: CleanPredictions) -> dict[str, Any]:
        """What became of an image, for a person to read."""
        runs, fell = self.runs.get(image, []), self.fell_to(image)
        queries = {
            "forwards": sum(outcome.forwards for _, _, outcome in runs),
            "backwards": sum(outcome.backwards for _, _, outcome in runs),
        }
        if fell is None:
            leads = [outcome.lead for _, _, outcome in runs if outcome.lead is not None]
            return {"standing": clean.right(image), **queries, "lead": max(leads, default=None)}
        part, run, outcome = fell
        rank, restart = divmod(run, self.parts[part].restarts)
        target = clean.ranking[image][rank] if self.parts[part].targets else None
        return {
            "standing": False,
            "by": part,
            "target": target,
            "restart": restart,
            "iterate": outcome.iterate,
            **queries,
            "distance": outcome.distance,
            "lead": outcome.lead,
        }


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation found.

    Attributes:
        ids: the images, in the order in which they were asked for.
        clean: what the network says of them unattacked.
        parts: for each attack, its parts.
        lines: the journal.
    """

    ids: Sequence[int]
    clean: CleanPredictions
    parts: Mapping[str, Parts]
    lines: Sequence[LogEntry]

    @cached_property
    def histories(self) -> dict[str, ImageHistory]:
        """By attack, what became of the images."""
        return {name: ImageHistory(name, parts, self.lines) for name, parts in self.parts.items()}

    def records(self) -> list[dict[str, Any]]:
        """A record for each image, by id; the same however the evaluation was run."""
        return [
            {
                "id": image,
                "label": self.clean.label[image],
                "predicted": self.clean.predicted[image],
                "lead": self.clean.lead[image],
                "attacks": {
                    name: each.record(image, self.clean) for name, each in self.histories.items()
                },
            }
            for image in sorted(self.ids)
        ]

    def standing(self) -> dict[str, list[bool]]:
        """For each attack, and each snapshot of it, which images stand."""
        found = {}
        for name, each in self.histories.items():
            for k in sorted({k for part in each.parts.values() for k in part.snapshots}):
                found[f"{name} at {k}"] = [each.stood(i, k, self.clean) for i in self.ids]
            found[name] = [each.stands(image, self.clean) for image in self.ids]
        return found

    def seconds(self) -> dict[str, float]:
        """For each attack, the time of its batches, added up."""
        return {
            name: sum(line.seconds for line in self.lines if line.attack == name)
            for name in self.parts
        }

    def tally(self, name: str) -> dict[str, dict[str, float]]:
        """For each part: images that came in and fell, passes for each of them, seconds."""
        return {
            part: _tally([x for x in self.lines if (x.attack, x.part) == (name, part)])
            for part in self.parts[name]
        }

    def check_outcome(self) -> list[str]:
        """What the outcome gives away about the network, in words."""
        notes = []
        for name, parts in self.parts.items():
            fell = [self.histories[name].fell_to(image) for image in self.ids]
            blows = [blow for blow in fell if blow is not None]
            fallen = {part: sum(blow[0] == part for blow in blows) for part in parts}
            late = sum(run % parts[part].restarts > 0 for part, run, _ in blows)
            notes += [f"{name}: {note}" for note in check_outcome(len(self.ids), fallen, late)]
        return notes


def _tally(lines: Sequence[LogEntry]) -> dict[str, float]:
    outcomes = [outcome for line in lines for outcome in line.outcomes]
    came = len({outcome.id for outcome in outcomes})
    return {
        "images": came,
        "broken": len({outcome.id for outcome in outcomes if outcome.fallen}),
        "forwards": round(sum(outcome.forwards for outcome in outcomes) / max(came, 1), 2),
        "backwards": round(sum(outcome.backwards for outcome in outcomes) / max(came, 1), 2),
        "seconds": round(sum(line.seconds for line in lines), 3),
    }
