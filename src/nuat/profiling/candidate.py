"""A recipe in training, to be timed a few steps at a time."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn

from nuat.data import ImageDataset
from nuat.profiling.timers import Clock, SectionTimer, TimedModel
from nuat.recipes import Recipe
from nuat.runtime.device import device_of, fastest_convolutions
from nuat.runtime.precision import convolution_precision
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.train_step import TrainStep

STEPS_PER_ROUND = 2
"""Two, because some methods alternate between even and odd steps."""


class Candidate:
    """A recipe to be timed: training steps in the last epoch of its schedules, on full batches.

    The weights of `model` change. With `cuda_graphs` each step is a CUDA graph; `print_line` is
    called with the reason if a step cannot be recorded.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        images: ImageDataset,
        cuda_graphs: bool = False,
        compile: bool = False,
        print_line: Callable[[str], None] = print,
    ):
        self.recipe, self.images = recipe, images
        self.num_batches = len(images) // recipe.batch_size
        self.train_step = TrainStep(
            recipe,
            model.train(),
            self.num_batches,
            make_batch=partial(images.make_batch, augment=recipe.augment),
            cuda_graphs=CudaGraphs(print_line) if cuda_graphs else None,
            compile=compile,
        )
        self.epoch = recipe.epochs - 1
        self.batches = self._full_batches()
        self.on_gpu = device_of(model).type == "cuda"
        self.seconds_per_step: list[float] = []
        self.peak_mib = 0.0

    def run_round(self) -> None:
        """Take `STEPS_PER_ROUND` training steps."""
        with convolution_precision(self.recipe.tf32), fastest_convolutions():
            for _ in range(STEPS_PER_ROUND):
                batch, inputs = next(self.batches)
                for _ in self.train_step.step(inputs, self.train_step.prepare(self.epoch, batch)):
                    pass

    def time_round(self, clock: Clock) -> None:
        """Take the steps of one round, and record their time and the peak memory."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = clock()
        self.run_round()
        self.seconds_per_step.append((clock() - start) / STEPS_PER_ROUND)
        self.peak_mib = _peak_mib(self.on_gpu)

    def time_shares(self, clock: Clock) -> dict[str, float]:
        """Return the share of each section of the step in the time of one round.

        The steps are the same as in `run_round`, but always without CUDA graphs, as a graph cannot
        be timed in sections.
        """
        with convolution_precision(self.recipe.tf32):
            return self._time_sections(clock)

    def _time_sections(self, clock: Clock) -> dict[str, float]:
        train_step, timer = self.train_step, SectionTimer(clock)
        timed_model = TimedModel(train_step.train_model, timer)
        for _ in range(STEPS_PER_ROUND):
            batch, inputs = next(self.batches)
            x, y = train_step.make_batch(inputs)
            timer.end_section("data")
            ctx = train_step.prepare(self.epoch, batch)
            timer.end_section("optimizer")
            for loss in self.recipe.method.step(timed_model, x, y, ctx):
                timer.end_section("forward")
                train_step.optimizer.zero_grad()
                loss.backward()
                timer.end_section("backward")
                train_step.optimizer.step()
                timer.end_section("optimizer")
            timer.end_section("forward")
            train_step.emas.update()
            timer.end_section("average")
        return timer.shares

    def _full_batches(self) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Yield (index of the batch, its inputs) for ever; partial batches are left out."""
        for epoch in count():
            inputs = self.images.shuffled_inputs(self.recipe.batch_size, epoch, self.recipe.augment)
            yield from ((index, next(inputs)) for index in range(self.num_batches))


def _peak_mib(on_gpu: bool) -> float:
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
