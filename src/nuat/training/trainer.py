"""The loop: epochs, batches, validation, checkpoints; of a method it knows only `step`.

Every step starts from a seed of its own, a function of (run seed, epoch, batch), as do the order of
an epoch and its crops. A run that was killed therefore goes on from its checkpoint to the very
weights it would have reached.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nuat.checkpoints import probe_metadata
from nuat.checkpoints.run import Run
from nuat.data import Splits
from nuat.errors import InputError, NonFiniteError
from nuat.recipes import Recipe
from nuat.rng import derive_seed
from nuat.runtime.oom import unify_oom_errors
from nuat.runtime.progress import Progress, format_duration
from nuat.training.cuda_graphs import Graphs
from nuat.training.meters import AverageMeter, LossMeter, Timer
from nuat.training.overfitting import (
    describe_overfitting,
    detect_overfitting,
    is_overfitting,
    validate,
)
from nuat.training.train_step import TrainStep

CHECKPOINT_SECONDS = 600.0
"""Within an epoch, a checkpoint is written after so long; at the end of an epoch, always."""


@dataclass
class Trainer:
    """One run in progress: all its state, and the loop."""

    recipe: Recipe
    f: nn.Module
    data: Splits
    run: Run
    seed: int
    device: torch.device
    max_time: float | None
    once: list[str] = field(default_factory=list)
    engine: list[str] = field(default_factory=list)
    graphs: bool = False

    epoch: int = 0
    batch: int = 0
    best: tuple[float, float] = (-1.0, -1.0)
    losses: LossMeter = field(default_factory=LossMeter)
    notes: AverageMeter = field(default_factory=AverageMeter)
    watch: Timer = field(default_factory=Timer)

    def __post_init__(self) -> None:
        self.batches = -(-len(self.data.train) // self.recipe.batch_size)
        self.descent = TrainStep(self.recipe, self.f, self.batches, self.seed)
        self.opened = self.saved = time.monotonic()

    @property
    def now(self) -> float:
        """The epoch as a float: where in the schedules the next step is."""
        return self.epoch + self.batch / self.batches

    @property
    def done(self) -> int:
        """Batches so far."""
        return self.epoch * self.batches + self.batch

    @property
    def time_is_up(self) -> bool:
        """Whether max_time has passed."""
        return self.max_time is not None and time.monotonic() - self.opened > self.max_time

    def go(self) -> None:
        """Go on to the last epoch, or until the time is up."""
        self.load()
        total = self.recipe.epochs * self.batches
        with Progress(self.recipe.name, total, self.done) as progress:
            if self.done:
                progress.print_line(f"{self.run.path}: going on after {self.place()}")
            once = [] if self.done else self.once
            own = self.recipe.method.startup_notes(self.recipe.batch_size)
            for remark in filter(None, (*once, *self.engine, *own)):
                progress.print_line(remark)
            if self.graphs:
                self.descent.graphs = Graphs(self.recipe.method, progress.print_line)
            while not self.run.finished:
                self.train(progress)
                if self.batch < self.batches:
                    progress.print_line(
                        f"time is up after {self.place()}; the same command goes on"
                    )
                    return
                self.end_epoch(progress)
        self.f.load_state_dict(self.run.weights())

    def train(self, progress: Progress) -> None:
        """The rest of an epoch, or as much of it as there is time for."""
        self.f.train()
        order = derive_seed(self.seed, "order", self.epoch)
        batches = self.data.train.shuffled_batches(
            self.recipe.batch_size, order, self.recipe.augment, start=self.batch
        )
        with self.watch.running(), self.naming_the_batch():
            for x, y in batches:
                if self.time_is_up:
                    self.save()
                    return
                self.step(x, y)
                self.batch += 1
                progress.advance(loss=f"{self.losses.mean:.3f}", images_per_s=f"{self.speed():.0f}")
                if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                    self.save()
            self.losses.read()

    def step(self, x: Tensor, y: Tensor) -> None:
        """One batch: descend every loss of the method, then take the weights into the averages."""
        t = self.descent.begin(self.epoch, self.batch)
        for loss in self.descent.step(x, y, t):
            self.losses.note(loss)
        self.notes.take(t.logs)

    def end_epoch(self, progress: Progress) -> None:
        """Validate, keep the best, look for a collapse, write everything down."""
        metrics = {"epoch": self.epoch + 1, "loss": self.losses.close(), **self.settings()}
        metrics |= self.notes.close() | self.marks()
        self.epoch, self.batch = self.epoch + 1, 0
        metrics |= validate(self.descent.kept, self.data.val, self.recipe.ball)
        metrics["seconds"] = self.watch.seconds
        clean, robust = metrics["val_clean"], metrics["val_robust"]
        rank = (robust, clean) if self.recipe.method.threat_model else (clean, robust)
        if rank > self.best:
            self.best = rank
            self.keep("model")
        progress.advance(0, clean=f"{clean:.1%}", robust=f"{robust:.1%}")
        progress.print_line(self.summary(metrics))
        self.guard(metrics, progress)
        if not metrics.get("stopped"):
            self.keep("last")
        self.run.log(metrics)
        self.save()

    def guard(self, metrics: dict[str, Any], progress: Progress) -> None:
        """If this epoch shows a collapse, say so, and do what the recipe says."""
        if not self.recipe.method.threat_model:
            return
        answer, epochs = self.recipe.on_overfitting, [*self.run.metrics, metrics]
        if not is_overfitting(epochs):
            if answer == "rollback":
                self.run.save_state("good", self.descent.state_dict())
            return
        # after a rollback every collapse is a new one
        finding = (
            describe_overfitting(epochs) if answer == "rollback" else detect_overfitting(epochs)
        )
        if finding:
            metrics["collapse"] = finding
            progress.print_line(f"WARNING: {finding} (on_overfitting={answer})")
        if answer == "stop":
            metrics["stopped"] = True
        elif answer == "rollback" and (good := self.run.load_state("good", self.device)):
            self.descent.load_state_dict(good)

    def settings(self) -> dict[str, float]:
        """What the schedules say: lr and momentum after the epoch, the method's in it."""
        own = self.recipe.method.schedules()
        return {
            "lr": self.recipe.lr(self.now),
            "momentum": self.recipe.momentum(self.now),
            **{name: schedule(self.epoch) for name, schedule in own.items()},
        }

    def marks(self) -> dict[str, list[float]]:
        """What the method marked in this epoch, as moments in epochs: 2.5 is half of the third."""
        return {
            f"{name}_began": [
                epoch + batch / self.batches for epoch, batch in moments if epoch == self.epoch
            ]
            for name, moments in self.descent.memory.get("events", {}).items()
        }

    def summary(self, metrics: dict[str, Any]) -> str:
        """An epoch in a line."""
        left = self.watch.seconds / self.epoch * (self.recipe.epochs - self.epoch)
        own = (f"{name} {metrics[name]:.3g}" for name in self.recipe.method.schedules())
        parts = (
            f"epoch {self.epoch:>{len(str(self.recipe.epochs))}}/{self.recipe.epochs}",
            f"loss {metrics['loss']:.3f}",
            f"clean {metrics['val_clean']:.1%}",
            f"robust {metrics['val_robust']:.1%}",
            *own,
            f"{self.speed():.0f} images/s",
            f"{format_duration(left)} left",
        )
        return "  ".join(parts)

    def speed(self) -> float:
        """Trainer images a second, over the whole run."""
        return self.done * self.recipe.batch_size / max(self.watch.seconds, 1e-9)

    def place(self) -> str:
        """Where the run is, for people."""
        return f"epoch {self.epoch}" + (f" and {self.batch} batches" if self.batch else "")

    @contextmanager
    def naming_the_batch(self) -> Iterator[None]:
        """Say in which batch a loss went wrong, and what is safe; or that memory ran out."""
        try:
            with unify_oom_errors():
                yield
        except torch.OutOfMemoryError:
            raise InputError(
                f"batches of {self.recipe.batch_size} do not fit into the memory of {self.device}: "
                "take a smaller one (--set batch_size=N, in a new folder), or --set precision=bf16"
            ) from None
        except NonFiniteError as error:
            there = self.run.has_checkpoint
            kept = (
                f"{self.run.path} holds the last good checkpoint" if there else "nothing was kept"
            )
            raise NonFiniteError(
                f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.batches}: {error}. "
                f"Trainer stopped; {kept}. "
                "A smaller learning rate (--set lr.value=...) or lam is the usual cure"
            ) from error

    def keep(self, name: str) -> None:
        """Write the weights to use, with what they are beside them."""
        about = {
            "model": self.run.config["model"],
            "recipe": self.recipe.name,
            "data": self.data.name,
            "classes": json.dumps(self.data.classes),
            "channels": str(self.data.train.channels),
            "ball": repr(self.recipe.ball),
            "epoch": str(self.epoch),
        }
        about |= probe_metadata(self.descent.kept, self.data.train.batch(torch.arange(1))[0])
        self.run.save_weights(name, self.descent.kept.state_dict(), about)

    def save(self) -> None:
        """Write a checkpoint: the state, and the place in the run."""
        self.losses.read()
        place = {
            "epoch": self.epoch,
            "batch": self.batch,
            "best": list(self.best),
            "seconds": self.watch.seconds,
            "losses": [self.losses.total, self.losses.count],
            "notes": self.notes.read(),
        }
        self.run.save_checkpoint(self.descent.state_dict() | place)
        self.saved = time.monotonic()

    def load(self) -> None:
        """Go on from the run's checkpoint, if it has one."""
        state = self.run.load_checkpoint(self.device)
        self.run.truncate_metrics(state["epoch"] if state else 0)
        if state is None:
            return
        self.descent.load_state_dict(state)
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.best = (state["best"][0], state["best"][1])
        self.watch.before = state["seconds"]
        self.losses, self.notes = LossMeter(*state["losses"]), AverageMeter(**state["notes"])
