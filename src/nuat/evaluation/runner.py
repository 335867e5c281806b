"""Run the attacks of an evaluation, batch by batch, on the images that are still robust."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from nuat.attacks import Attack, AttackResult, logits, predict, run_attack
from nuat.attacks.graphs import GraphCapture
from nuat.data.hashing import hash_images
from nuat.data.validation import check_images
from nuat.evaluation.eight_bit import EightBitVerdicts, judge_8_bits
from nuat.evaluation.log import EvaluationLog
from nuat.evaluation.log_entry import AttackOutcome, LogEntry, RunKey
from nuat.evaluation.per_image import CleanPredictions, EvaluationRecord, Parts
from nuat.evaluation.request import NUM_PROBES, EvaluationRequest, count_runs
from nuat.evaluation.search_model import without_copy
from nuat.losses import margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import gather, rank, world_size
from nuat.runtime.signals import out_of_time

CLEAN_COLUMNS = [column.name for column in fields(CleanPredictions)]


@dataclass
class BatchSize:
    """The number of images attacked at once, halved when memory runs out."""

    value: int
    notes: list[str] = field(default_factory=list)

    def halve(self, error: Exception) -> None:
        """Halve the batch size after running out of memory; raise the error again at size 1."""
        if self.value == 1:
            raise error
        self.notes.append(f"out of memory with batches of {self.value} images: halved")
        self.value //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def predict_clean(request: EvaluationRequest, batch_size: BatchSize) -> CleanPredictions:
    """Predict and hash all clean images; the ranks share them out."""
    shares = gather(_predict_share(request, batch_size))
    clean = CleanPredictions()
    by_index = {index: position for position, index in enumerate(request.indices)}
    for name in CLEAN_COLUMNS:
        found: dict[int, Any] = {}
        for share in shares:
            found |= getattr(share, name)
        # in the order of the request, which shares out the images of the attacks
        getattr(clean, name).update(sorted(found.items(), key=lambda item: by_index[item[0]]))
    return clean


def _predict_share(request: EvaluationRequest, batch_size: BatchSize) -> CleanPredictions:
    """Predict and hash the clean images of this rank."""
    clean, share = CleanPredictions(), list(request.indices)[rank() :: world_size()]
    start = 0
    while start < len(share):
        indices = share[start : start + batch_size.value]
        try:
            with unify_oom_errors():
                x, y = request.images.batch(torch.tensor(indices))
                check_images(x)
                z = logits(request.model, x)
        except torch.OutOfMemoryError as error:
            batch_size.halve(error)
            continue
        columns = {
            "label": y.tolist(),
            "predicted": predict(z).tolist(),
            "margin": [round_float32(value) for value in margin(z, y).tolist()],
            "targets": _rank_targets(request, x, y, z),
            "hashes": hash_images(x, y),
        }
        for name, values in columns.items():
            getattr(clean, name).update(zip(indices, values, strict=True))
        start += len(indices)
    return clean


def _rank_targets(
    request: EvaluationRequest, x: Tensor, y: Tensor, z: Tensor
) -> list[dict[tuple[str, str], list[int]]]:
    """Return the target classes of each part of each attack, for each of the images x."""
    targets: list[dict[tuple[str, str], list[int]]] = [{} for _ in x]
    with frozen_eval(request.model) as frozen_model:
        for name, parts in request.parts.items():
            for part, attack in parts.items():
                if not attack.targets:
                    continue
                ranking = attack.rank_targets(frozen_model, x, y, z)[:, : attack.targets]
                for row, classes in zip(targets, ranking.tolist(), strict=True):
                    row[name, part] = classes
    return targets


class EvaluationRunner:
    """Runs the attacks of a request, and appends the outcome of each batch to the log."""

    def __init__(
        self,
        request: EvaluationRequest,
        log: EvaluationLog,
        clean: CleanPredictions,
        batch_size: BatchSize,
    ):
        self.request, self.log = request, log
        self.clean, self.batch_size = clean, batch_size
        self.search_model, self.notes = request.search_model, list[str]()
        self.graphs = GraphCapture(enabled=request.cuda_graphs, notes=self.notes)
        self.is_late = False
        self.progress = Progress("attacking", 0, hidden=True)

    def run(self, quiet: bool = True) -> EvaluationRecord:
        """Run every attack, and wait for the other ranks.

        Raises:
            Stopped: the time is over on one of the ranks; the log holds what is done.
        """
        request = self.request
        total = count_runs(request.parts, request.classes) * len(request.indices)
        with Progress("attacking", math.ceil(total / world_size()), hidden=quiet) as progress:
            self.progress = progress
            for name, parts in request.parts.items():
                self.run_parts(name, parts)
            self.graphs.clear()
            if any(gather(self.is_late)):
                assert request.max_time is not None
                raise out_of_time(request.max_time)
        if world_size() > 1:
            self.log.reload()
        return EvaluationRecord(request.indices, self.clean, request.parts, self.log.entries)

    def run_parts(self, name: str, parts: Parts) -> None:
        """Run the parts of an attack, each on the images on which no earlier part succeeds."""
        request = self.request
        assigned = [
            index
            for position, index in enumerate(self.clean.label)
            if self.assigned_to_rank(position, parts)
        ]
        robust = [index for index in assigned if self.clean.is_correct(index)]
        for part, attack in parts.items():
            broken: set[int] = set()
            for run in range(attack.num_runs(request.classes)):
                key = RunKey(name, part, run)
                completed = self.log.completed(key)
                remaining = [index for index in robust if index not in completed]
                skipped = len(assigned) - len(remaining)
                self.progress.advance(skipped, attack=part, robust=str(len(robust)))
                for batch in self.batches(attack, remaining):
                    self.is_late = self.is_late or request.is_over()
                    if self.is_late:
                        return
                    self.run_batch(key, attack, batch)
                broken |= {i for i, adversarial in self.log.completed(key).items() if adversarial}
                # Batchwise attacks depend on the whole batch, and snapshots need every restart:
                # images on which these succeed stay in the batch until the part ends.
                if not (attack.batchwise or attack.snapshots):
                    robust = [index for index in robust if index not in broken]
            robust = [index for index in robust if index not in broken]

    def assigned_to_rank(self, position: int, parts: Parts) -> bool:
        """Return whether this rank attacks an image; rank 0 runs all batchwise attacks."""
        if any(attack.batchwise for attack in parts.values()):
            return rank() == 0
        return position % world_size() == rank()

    def batches(self, attack: Attack, indices: list[int]) -> Iterator[list[int]]:
        """Split the images into batches; a batchwise attack has fixed batches of its own size."""
        if attack.batchwise:
            correct = sorted(index for index in self.clean.label if self.clean.is_correct(index))
            size, remaining = attack.batch, set(indices)  # type: ignore[attr-defined]
            fixed = (correct[start : start + size] for start in range(0, len(correct), size))
            yield from (batch for batch in fixed if batch[0] in remaining)
            return
        start = 0
        while start < len(indices):
            batch = indices[start : start + self.batch_size.value]  # may shrink in between
            yield batch
            start += len(batch)

    def run_batch(self, key: RunKey, attack: Attack, indices: list[int]) -> None:
        """Run an attack on one batch and log it; split the batch if memory runs out."""
        start, attempt = time.monotonic(), None
        try:
            with unify_oom_errors():
                attempt = self.attempt(key, attack, indices)
        except torch.OutOfMemoryError as error:
            if attack.batchwise:
                raise
            self.graphs.clear()
            if len(indices) <= self.batch_size.value:
                self.batch_size.halve(error)
        if attempt is None:
            # Outside the except block, because the error keeps the failed batch in memory.
            for batch in self.batches(attack, indices):
                self.run_batch(key, attack, batch)
            return
        result, distance, eight_bit = attempt
        snapshots = {step: robust.tolist() for step, robust in result.snapshots.items()}
        outcomes = tuple(_outcomes(indices, result, distance, eight_bit))
        seconds = time.monotonic() - start
        entry = LogEntry(key, seconds, outcomes, snapshots, result.bad_gradients)
        save = self.request.save_adversarial
        self.log.append(entry, result.x_adv[result.adversarial] if save else None)
        self.progress.advance(len(indices))

    def attempt(
        self, key: RunKey, attack: Attack, indices: list[int]
    ) -> tuple[AttackResult, Tensor, EightBitVerdicts]:
        """Run an attack on one batch.

        Returns the result, the distances of x_adv from x, [B], and the verdicts on x_adv in 8 bits.
        """
        request = self.request
        x, y = request.images.batch(torch.tensor(indices))
        noise = PerImageNoise(request.seed, torch.tensor(indices, device=x.device), key.part)
        targets = None
        if attack.targets:
            ranking = [self.clean.targets[index][key.attack, key.part] for index in indices]
            targets = torch.tensor(ranking, device=x.device)
        with frozen_eval(request.model, attack.train_mode) as frozen_model:
            # The search model is in eval mode, and batch statistics cannot be folded.
            search_model = frozen_model if attack.train_mode else self.search_model
            result = run_attack(
                attack, request.model, search_model, x, y, noise, key.run, targets, self.graphs
            )
        if not attack.train_mode and not self.copy_agrees(result.x_adv):
            return self.attempt(key, attack, indices)
        distance = attack.ball.distance(result.x_adv, x)
        return result, distance, judge_8_bits(request.model, x, y, result, attack.ball)

    def copy_agrees(self, x_adv: Tensor) -> bool:
        """Compare the copy with the model after an attack; if they differ, give up the copy."""
        model = self.request.model
        if self.search_model.agrees_with(model, x_adv[:NUM_PROBES]):
            return True
        self.search_model = without_copy(model, self.search_model.precision)
        self.notes += self.search_model.notes
        return False


def _outcomes(
    indices: list[int], result: AttackResult, distance: Tensor, eight_bit: EightBitVerdicts
) -> Iterator[AttackOutcome]:
    columns = {
        "adversarial": result.adversarial,
        "step": result.step,
        "forwards": result.forwards,
        "backwards": result.backwards,
        "margin": result.margin,
        "distance": distance,
        "adversarial_8bit": eight_bit.adversarial,
        "distance_8bit": eight_bit.distance,
    }
    # one transfer from the GPU for each column
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for index, row in zip(indices, rows, strict=True):
        values = dict(zip(columns, row, strict=True))
        values["margin"] = round_float32(values["margin"])
        values["distance"] = round_float32(values["distance"]) or 0.0
        values["distance_8bit"] = round_float32(values["distance_8bit"])
        yield AttackOutcome(index, **values)


def round_float32(value: float) -> float | None:
    """Round to six significant digits, the precision of float32; None if not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
