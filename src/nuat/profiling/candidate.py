"""A recipe in training, to be timed a few steps at a time."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor, nn

from nuat.data import InMemoryDataset
from nuat.profiling.timers import Clock, SectionTimer, TimedModel
from nuat.recipes import Recipe
from nuat.runtime.device import device_of
from nuat.training.cuda_graphs import Graphs
from nuat.training.train_step import TrainStep

STEPS = 2
"""Steps in a round: both parities of a method that alternates."""


class Candidate:
    """A recipe in the last epoch of its schedules, on whole batches."""

    def __init__(
        self,
        recipe: Recipe,
        f: nn.Module,
        images: InMemoryDataset,
        graphs: bool = False,
        say: Callable[[str], None] = print,
    ):
        """`f` is trained; with `graphs` in recorded steps, and `say` is told if that cannot be."""
        self.recipe, self.images = recipe, images
        self.whole = len(images) // recipe.batch_size
        self.descent = TrainStep(recipe, f.train(), self.whole)
        self.descent.graphs = Graphs(recipe.method, say) if graphs else None
        self.epoch, self.batches = recipe.epochs - 1, self._batches()
        self.on_gpu = device_of(f).type == "cuda"
        self.times: list[float] = []
        self.peak = 0.0

    def run(self) -> None:
        """The steps of a round."""
        for _ in range(STEPS):
            place, x, y = next(self.batches)
            for _ in self.descent.step(x, y, self.descent.begin(self.epoch, place)):
                pass

    def timed(self, clock: Clock) -> None:
        """A round, its time and memory noted."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = clock()
        self.run()
        self.times.append((clock() - start) / STEPS)
        self.peak = _peak_mib(self.on_gpu)

    def shares(self, clock: Clock) -> dict[str, float]:
        """Where the time of a round goes, by section; the same work, step by step in Python."""
        descent, laps = self.descent, SectionTimer(clock)
        seen = TimedModel(descent.seen, laps)
        for _ in range(STEPS):
            place, x, y = next(self.batches)
            laps("data")
            t = descent.begin(self.epoch, place)
            laps("optimizer")
            for loss in self.recipe.method.step(seen, x, y, t):
                laps("forward")
                descent.optimizer.zero_grad()
                loss.backward()
                laps("backward")
                descent.optimizer.step()
                laps("optimizer")
            laps("forward")
            descent.averages.update()
            laps("average")
        return laps.shares

    def _batches(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(place, images, labels) of whole batches, for ever."""
        for epoch in count():
            images = self.images.shuffled(self.recipe.batch_size, epoch, self.recipe.augment)
            yield from ((place, *next(images)) for place in range(self.whole))


def _peak_mib(on_gpu: bool) -> float:
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
