"""Running attacks on all that still stands, in batches packed from the whole data set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nuat.attacks import Attack, AttackResult, classes_by_logit, logits, run_attack
from nuat.data import ImageDataset
from nuat.data.validation import check_images
from nuat.errors import InputError
from nuat.evaluation.inference import InferenceModel
from nuat.evaluation.log import AttackOutcome, EvaluationLog, LogEntry
from nuat.evaluation.per_image import CleanPredictions
from nuat.losses import margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import rank, world_size

AUTO = {"cuda": 1024, "cpu": 128}
"""Images in a batch at first, by device, when nothing else is asked for."""


@dataclass
class Batches:
    """How many images fit: halved when memory runs out."""

    size: int
    halvings: list[str] = field(default_factory=list)

    @staticmethod
    def of(size: int | None, device: torch.device) -> Batches:
        """The size asked for, or one for this device. Raises InputError for less than 1."""
        if size is not None and size < 1:
            raise InputError(f"batch_size is {size}, but must be a whole number from 1 up")
        return Batches(size or AUTO.get(device.type, AUTO["cpu"]))

    def halve(self, error: Exception) -> None:
        """After running out of memory. Raises the error again if there is nothing to halve."""
        if self.size == 1:
            raise error
        self.halvings.append(f"memory did not suffice for batches of {self.size}: halved")
        self.size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass
class EvaluationRunner:
    """An evaluation in progress.

    Attributes:
        f: the network whose verdict counts.
        search: the network that is build_inference_model.
        images: where images come from.
        journal: what is done.
        batches: how many images at a time.
        seed: of the noise.
        keep_points: whether to keep what images fell to.
        progress: the bar.
    """

    f: nn.Module
    search: InferenceModel
    images: ImageDataset
    journal: EvaluationLog
    batches: Batches
    seed: int
    keep_points: bool
    progress: Progress

    def clean(self, ids: Sequence[int], aims: int) -> CleanPredictions:
        """What the network says of the clean images; `aims` classes of the ranking are kept."""
        found, left = CleanPredictions({}, {}, {}, {}), list(ids)
        while left:
            part = left[: self.batches.size]
            try:
                with unify_oom_errors():
                    x, y = self.batch(part)
                    check_images(x)
                    z = logits(self.f, x)
            except torch.OutOfMemoryError as error:
                self.batches.halve(error)
                continue
            found.label.update(zip(part, y.tolist(), strict=True))
            found.predicted.update(zip(part, z.argmax(1).tolist(), strict=True))
            leads = (rounded(lead) for lead in margin(z, y).tolist())
            found.lead.update(zip(part, leads, strict=True))
            order = classes_by_logit(z, y)[:, :aims].tolist()
            found.ranking.update(zip(part, order, strict=True))
            left = left[len(part) :]
        return found

    def attack(
        self, name: str, parts: Mapping[str, Attack], clean: CleanPredictions, classes: int
    ) -> None:
        """Run the parts of an attack, each on what the ones before left standing."""
        mine = [i for place, i in enumerate(clean.label) if self.is_mine(place, parts)]
        standing = [image for image in mine if clean.right(image)]
        for part, each in parts.items():
            fallen: set[int] = set()
            for run in range(each.runs(classes)):
                gone = self.done(name, part, run)
                todo = [image for image in standing if image not in gone]
                self.progress.advance(
                    len(mine) - len(todo), attack=part, standing=str(len(standing))
                )
                for group in self.groups(each, todo, clean):
                    self.run(name, part, each, run, group, clean)
                fallen |= {i for i, fell in self.done(name, part, run).items() if fell}
                # what the others in its batch, or its snapshots, come to depends on who stays
                if not (each.joint or each.snapshots):
                    standing = [image for image in standing if image not in fallen]
            standing = [image for image in standing if image not in fallen]

    def is_mine(self, place: int, parts: Mapping[str, Attack]) -> bool:
        """Whether this rank attacks the image at a place; joint attacks are the first rank's."""
        joint = any(each.joint for each in parts.values())
        return rank() == 0 if joint else place % world_size() == rank()

    def done(self, name: str, part: str, run: int) -> dict[int, bool]:
        """The images that this run is done with, and whether they fell to it."""
        key = name, part, run
        lines = (line for line in self.journal.lines if (line.attack, line.part, line.run) == key)
        return {outcome.id: outcome.fallen for line in lines for outcome in line.outcomes}

    def groups(self, each: Attack, ids: list[int], clean: CleanPredictions) -> Iterator[list[int]]:
        """The images in batches; those of a joint attack are its own and never change."""
        if each.joint:
            every = sorted(image for image in clean.label if clean.right(image))
            size, left = each.batch, set(ids)  # type: ignore[attr-defined]
            whole = (every[at : at + size] for at in range(0, len(every), size))
            yield from (group for group in whole if group[0] in left)
            return
        while ids:
            size = self.batches.size
            yield ids[:size]
            ids = ids[size:]

    def run(
        self, name: str, part: str, each: Attack, run: int, ids: list[int], clean: CleanPredictions
    ) -> None:
        """One run on one batch, written down; in smaller ones if memory does not suffice."""
        begun, tried = time.monotonic(), None
        try:
            with unify_oom_errors():
                tried = self.tried(part, each, run, ids, clean)
        except torch.OutOfMemoryError as error:
            if each.joint:
                raise
            if len(ids) <= self.batches.size:
                self.batches.halve(error)
        if tried is None:
            # not while the error is handled: it holds what the failed batch had in memory
            for group in self.groups(each, ids, clean):
                self.run(name, part, each, run, group, clean)
            return
        done, distance = tried
        outcomes = tuple(_outcomes(ids, done, distance))
        snapshots = {str(k): stood.tolist() for k, stood in done.snapshots.items()}
        line = LogEntry(name, part, run, time.monotonic() - begun, outcomes, snapshots)
        self.journal.write(line, done.x_adv[done.fallen] if self.keep_points else None)
        self.progress.advance(len(ids))

    def tried(
        self, part: str, each: Attack, run: int, ids: list[int], clean: CleanPredictions
    ) -> tuple[AttackResult, Tensor]:
        """A trial, and how far the points are from the images."""
        x, y = self.batch(ids)
        noise = PerImageNoise(self.seed, torch.tensor(ids), part)
        ranking = torch.tensor([clean.ranking[i] for i in ids], device=x.device)
        aimed = ranking if each.targets else None
        with frozen_eval(self.f, each.train_mode) as bare:
            g = bare if each.train_mode else self.search.g
            done = run_attack(each, self.f, g, x, y, noise, run, aimed)
        return done, each.ball.distance(done.x_adv, x)

    def batch(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and labels on the network's device."""
        return self.images.batch(torch.tensor(ids))


def _outcomes(ids: list[int], done: AttackResult, distance: Tensor) -> Iterator[AttackOutcome]:
    columns = (done.fallen, done.iterate, done.forwards, done.backwards, done.lead, distance)
    for image, *values in zip(ids, *(column.tolist() for column in columns), strict=True):
        *counts, lead, far = values
        yield AttackOutcome(image, *counts, rounded(lead), rounded(far) or 0.0)


def rounded(value: float) -> float | None:
    """Six digits, which is what float32 has; None for what is not finite."""
    finite = value == value and abs(value) != float("inf")
    return float(f"{value:.6g}") if finite else None
