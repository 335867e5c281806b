"""The training loop: epochs, batches, validation and checkpoints.

The order and augmentation of an epoch, and the noise of every step, are drawn from seeds of their
own, derived from the run's seed, the epoch and the batch. A resumed run therefore reaches the same
weights as an uninterrupted one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nuat.checkpoints.run import Run
from nuat.errors import NonFiniteError
from nuat.methods.cost import forward_equivalents
from nuat.nn.state_dict import load_plain_state_dict
from nuat.rng import derive_seed
from nuat.runtime.files import remove_leftovers
from nuat.runtime.locks import lock_folder
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import any_rank, from_first, rank, world_size
from nuat.runtime.signals import handle_signals, stopped_by
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.distributed import check_same_run, prepare_model, share_of_batch, wrap_model
from nuat.training.messages import chance_note, epoch_summary, error_context, position
from nuat.training.meters import AverageMeter, LossMeter, Timer
from nuat.training.nonfinite import may_roll_back, roll_back, train_or_skip
from nuat.training.overfitting import react_to_overfitting
from nuat.training.plan import Plan
from nuat.training.saving import (
    CHECKPOINT_SECONDS,
    copy_weights,
    is_worth_saving,
    load_checkpoint,
    save_checkpoint,
)
from nuat.training.train_step import TrainStep
from nuat.training.validation import validate


class _ValidationInterrupted(Exception):
    """The run must stop before the validation is through."""


class Trainer:
    """Trains according to a plan, from the run folder's checkpoint if there is one.

    Attributes:
        folder: the run folder.
        train_step: the model, its optimizer, its EMAs and the method's memory.
        epoch, batch: the number of completed epochs, and of completed batches in this epoch.
        finished: whether all epochs are done, or catastrophic overfitting has stopped the run.
        ranks_before: the number of ranks that wrote the checkpoint from which the run resumes.
        best: accuracies of the best epoch on the validation split: (robust,), or (clean, robust)
            without a threat model.
        validation_attack: the recipe's attack on the validation split.
        metrics: the metrics of all completed epochs, as in metrics.jsonl.
        skipped: the number of batches of this epoch that were not finite and were skipped.
        signal: the number of the signal that has asked to stop, if one has.
        unsaved: the weights that the next checkpoint writes, by file name, with their metadata.
        saved, save_seconds: when files were last written, and how long that took.
    """

    def __init__(self, plan: Plan):
        """Open the run folder. Raises InputError if it holds anything but this run."""
        self.plan, self.recipe, self.splits = plan, plan.recipe, plan.splits
        self.folder = from_first(Run.start, plan.folder, plan.config)
        self.config = from_first(lambda: self.folder.config)
        check_same_run(plan.config)
        if plan.initial_weights is not None:
            plan.initial_weights.apply(plan.model)
        prepare_model(plan.model, self.recipe.batchnorm)
        self.batches = -(-len(self.splits.train) // self.recipe.batch_size)
        self.train_step = TrainStep(
            self.recipe,
            plan.model,
            self.batches,
            plan.seed,
            partial(self.splits.train.make_batch, augment=self.recipe.augment),
            partial(share_of_batch, self.recipe, len(self.splits.train)),
            compile=plan.compile,
        )
        if world_size() > 1:
            x, _ = self.splits.train.batch(torch.arange(1))
            self.train_step.train_model = wrap_model(self.train_step.train_model, x)
        self.epoch = self.batch = self.skipped = 0
        self.signal: int | None = None
        self.ranks_before = world_size()
        self.finished = False
        self.best: tuple[float, ...] = ()
        self.validation_attack = self.recipe.parsed_validation_attack()
        self.metrics: list[dict[str, Any]] = []
        self.losses, self.logs, self.timer = LossMeter(), AverageMeter(), Timer()
        self.unsaved: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {}
        self.started = self.saved = time.monotonic()
        self.save_seconds = 0.0

    @property
    def load_device(self) -> torch.device:
        """Where rank 0 loads a state, which it sends to the other ranks."""
        return self.plan.device if world_size() == 1 else torch.device("cpu")

    @property
    def batches_done(self) -> int:
        """The number of completed batches over all epochs."""
        return self.epoch * self.batches + self.batch

    @property
    def time_is_up(self) -> bool:
        """Whether `max_time` has passed since the trainer was created."""
        max_time = self.plan.max_time
        return max_time is not None and time.monotonic() - self.started > max_time

    def run(self) -> Run:
        """Train until the run has finished or the time is up, and return the run.

        At the end of a finished run the model holds the weights of the best epoch.

        Raises:
            Stopped: a signal has asked to stop; the checkpoint is of the step before.
        """

        def note(number: int) -> None:
            self.signal = number

        with ExitStack() as stack, handle_signals(note):
            from_first(lambda: stack.enter_context(lock_folder(self.folder.path)))
            from_first(remove_leftovers, self.folder.path)
            return self._run()

    def _run(self) -> Run:
        load_checkpoint(self)
        total = self.recipe.epochs * self.batches
        with Progress(self.recipe.name, total, self.batches_done, hidden=rank() > 0) as bar:
            self.print_notes(bar)
            if self.plan.cuda_graphs:
                self.train_step.cuda_graphs = CudaGraphs(bar.print_line)
            if self.recipe.on_nonfinite == "rollback" and not self.batches_done:
                save_checkpoint(self)
            while not self.finished:
                try:
                    with error_context(self):
                        self.train_epoch(bar)
                        if self.batch < self.batches:
                            break
                        accuracies = self.validate(bar)
                        if accuracies is None:
                            break
                        self.end_epoch(accuracies, bar)
                except NonFiniteError as error:
                    if not may_roll_back(self):
                        raise
                    roll_back(self, error, bar)
            if not self.finished:
                bar.print_line(f"stopped after {position(self)}; run the same command to go on")
                if any_rank(self.signal is not None)[0]:
                    raise stopped_by(self.signal or signal.SIGTERM)
                return self.folder
        load_plain_state_dict(self.plan.model, from_first(self.folder.weights))
        return self.folder

    def print_notes(self, bar: Progress) -> None:
        """Print where the run resumes, or its startup notes; then its runtime notes."""
        if self.batches_done:
            bar.print_line(f"{self.folder.path}: resuming after {position(self)}")
            if self.ranks_before != world_size():
                bar.print_line(f"so far on {self.ranks_before} ranks, from here on {world_size()}")
        else:
            for note in self.plan.startup_notes:
                bar.print_line(note)
        for note in self.plan.runtime_notes:
            bar.print_line(note)

    def train_epoch(self, bar: Progress) -> None:
        """Train on the remaining batches of this epoch; if the run must stop, save and return."""
        self.plan.model.train()
        batches = self.splits.train.shuffled_inputs(
            self.recipe.batch_size,
            derive_seed(self.plan.seed, "order", self.epoch),
            self.recipe.augment,
            start=self.batch,
            share=slice(rank(), None, world_size()),
        )
        train = train_or_skip if self.recipe.on_nonfinite == "skip" else Trainer.train_batch
        with self.timer.running():
            for inputs in batches:
                is_due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
                must_stop = self.time_is_up or self.signal is not None
                must_stop, is_due = any_rank(must_stop, is_due)
                if must_stop or is_due:
                    save_checkpoint(self)
                if must_stop:
                    return
                train(self, inputs)
                self.batch += 1
                bar.advance(
                    loss=f"{self.losses.mean:.3f}", images_per_s=f"{self.images_per_s():.0f}"
                )
            self.losses.flush()

    def train_batch(self, inputs: Sequence[Tensor]) -> None:
        """Take one training step."""
        ctx = self.train_step.prepare(self.epoch, self.batch)
        for loss in self.train_step.step(inputs, ctx):
            # on a CPU this raises before the optimizer applies a loss that is not finite
            self.losses.update(loss)
        self.logs.update(ctx.logs)

    def validate(self, bar: Progress) -> dict[str, float] | None:
        """Return the accuracies on the validation split, or None if the run must stop.

        Then a checkpoint is saved, from which the next command validates first. Several ranks stop
        only after their validation, since they need not have equally many batches.
        """
        total = len(range(rank(), len(self.splits.val), world_size()))

        def after_batch(done: int) -> None:
            bar.advance(0, validated=f"{done}/{total}")
            must_stop = self.time_is_up or self.signal is not None
            if must_stop and done < total and world_size() == 1:
                raise _ValidationInterrupted

        try:
            return validate(
                self.train_step.eval_model,
                self.splits.val,
                self.validation_attack,
                self.recipe.precision,
                after_batch=after_batch,
            )
        except _ValidationInterrupted:
            save_checkpoint(self)
            return None
        finally:
            bar.forget("validated")

    def end_epoch(self, accuracies: dict[str, float], bar: Progress) -> None:
        """Save the weights, react to catastrophic overfitting, write the metrics."""
        metrics: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": self.losses.pop_mean(),
            **self.hyperparameters(),
        }
        metrics |= self.logs.pop_means() | self.events()
        if self.skipped:
            metrics["skipped"] = self.skipped
            bar.print_line(f"WARNING: {self.skipped} of {self.batches} batches were not finite")
        self.epoch, self.batch, self.skipped = self.epoch + 1, 0, 0
        metrics |= accuracies
        metrics["seconds"] = self.timer.seconds
        if self.plan.device.type == "cuda":
            metrics["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        if self.epoch == 1:
            metrics["forward_equivalents"] = self.count_forward_equivalents()
        clean, robust = metrics["val_clean"], metrics["val_robust"]
        # As published, the earliest of equally robust epochs is kept. Standard training, of which
        # nothing is published, prefers the more robust of two epochs of equal clean accuracy.
        score = (robust,) if self.recipe.method.threat_model else (clean, robust)
        if score > self.best:
            self.best = score
            self.unsaved["model"] = copy_weights(self)
        bar.advance(0, clean=f"{clean:.1%}", robust=f"{robust:.1%}")
        bar.print_line(epoch_summary(self, metrics))
        if note := chance_note(self, metrics):
            bar.print_line(note)
        react_to_overfitting(self, metrics, bar)
        self.finished = self.epoch == self.recipe.epochs or metrics.get("stopped", False)
        # a run that overfitting stopped keeps the last weights from before
        if not metrics.get("stopped"):
            self.unsaved["last"] = copy_weights(self)
        self.metrics.append(metrics)
        from_first(self.folder.log, metrics)
        if any_rank(self.finished or is_worth_saving(self))[0]:
            save_checkpoint(self)

    def hyperparameters(self) -> dict[str, float]:
        """Return lr and momentum after this epoch, and the method's schedules during it."""
        epoch = self.epoch + self.batch / self.batches
        schedules = self.recipe.method.schedules()
        return {
            "lr": self.recipe.lr(epoch) * self.train_step.lr_factor,
            "momentum": self.recipe.momentum(epoch),
            **{name: schedule(self.epoch) for name, schedule in schedules.items()},
        }

    def events(self) -> dict[str, list[float]]:
        """Return when the method's events of this epoch happened, in epochs.

        2.5 is the middle of the third epoch.
        """
        return {
            f"{name}_began": [
                epoch + batch / self.batches for epoch, batch in times if epoch == self.epoch
            ]
            for name, times in self.train_step.memory.get("events", {}).items()
        }

    def count_forward_equivalents(self) -> float:
        """Return the cost of a training step in forward passes, counted on two images."""
        x, y = self.splits.train.batch(torch.arange(min(2, len(self.splits.train))))
        last_epoch = self.recipe.epochs - 1
        return forward_equivalents(self.recipe.method, self.plan.model, x, y, epoch=last_epoch)

    def images_per_s(self) -> float:
        """Return the training images per second, over the whole run."""
        return self.batches_done * self.recipe.batch_size / max(self.timer.seconds, 1e-9)
