"""One training step: minimize each loss that the method yields, then update the EMAs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.methods import StepContext
from nuat.methods.share import BatchShare
from nuat.nn.ema import EMAs
from nuat.nn.precision import with_precision
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict
from nuat.nn.validation import check_loss
from nuat.recipes import Recipe
from nuat.rng import derive_seed
from nuat.runtime.device import device_of
from nuat.runtime.ranks import rank, world_size
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.distributed import (
    average_statistics,
    gather_memory,
    norm_batch_size,
    rank_noise,
    split_memory,
)
from nuat.training.sgd import CapturableSGD


def _whole_batch(batch: int) -> BatchShare:
    return BatchShare()


def _images_and_labels(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    x, y = inputs
    return x, y


@dataclass
class TrainStep:
    """A model in training: its weights, its optimizer, its EMAs and the method's memory.

    Attributes:
        recipe: the recipe to train according to.
        model: the model, in float32.
        batches: the number of batches per epoch.
        seed: the seed of the run; every step derives its own from it, the epoch and the batch.
        make_batch: makes images and labels of the inputs of a step, which are just these by
            default; see `ImageDataset.make_batch`.
        share_of: the share of a batch, by its index, that this process trains on; all by default.
        cuda_graphs: the recorded steps, if the run uses CUDA graphs.
        compile: whether full batches use a model compiled by torch.compile.
        memory: what the method keeps between steps.
        lr_factor: the factor of the recipe's learning rate; below 1 after a rollback.
        train_model: the model that the method sees, in the recipe's precision.
        emas: the EMAs that the recipe and the method use.
    """

    recipe: Recipe
    model: nn.Module
    batches: int
    seed: int = 0
    make_batch: Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]] = _images_and_labels
    share_of: Callable[[int], BatchShare] = _whole_batch
    cuda_graphs: CudaGraphs | None = None
    compile: bool = False
    memory: dict[str, Any] = field(default_factory=dict)
    lr_factor: float = 1.0

    def __post_init__(self) -> None:
        self.device = device_of(self.model)
        sgd = CapturableSGD if self.device.type == "cuda" else torch.optim.SGD
        # the schedules set lr and momentum before every step
        self.optimizer = sgd(self.model.parameters(), lr=0.0, weight_decay=self.recipe.weight_decay)
        self.emas = EMAs(self.model)
        if self.recipe.ema_decay is not None:
            self.emas(self.recipe.ema_decay)
        self.train_model = self.with_autocast(self.model)
        self.compiled_model: nn.Module | None = None

    @property
    def eval_model(self) -> nn.Module:
        """The model to validate and to save: the recipe's EMA if it has one."""
        return self.model if self.recipe.ema_decay is None else self.emas(self.recipe.ema_decay)

    def with_autocast(self, model: nn.Module) -> nn.Module:
        """Return a model that computes `model` in the recipe's precision."""
        return with_precision(model, self.recipe.precision)

    def prepare(self, epoch: int, batch: int) -> StepContext:
        """Set learning rate, momentum and random seed for a batch, and return its context."""
        epoch_float = epoch + batch / self.batches
        lr = self.recipe.lr(epoch_float) * self.lr_factor
        momentum = self.recipe.momentum(epoch_float)
        # the recipe has checked whole epochs only
        if not (0 <= lr < math.inf and 0 <= momentum < 1):
            raise InputError(
                f"after {epoch_float:g} epochs, lr is {lr} and momentum is {momentum}, but lr must "
                "be finite and from 0 up, and momentum in [0, 1)"
            )
        for group in self.optimizer.param_groups:
            group |= {"lr": lr, "momentum": momentum}
        share = self.share_of(batch)
        ctx = StepContext(
            epoch=epoch,
            batch=batch,
            batches=self.batches,
            batch_size=norm_batch_size(self.recipe),
            lr=lr,
            momentum=momentum,
            noise=rank_noise(share, self._seed(epoch, batch), self.device),
            emas=lambda decay: self.with_autocast(self.emas(decay)),
            memory=self.memory,
            share=share,
        )
        self.set_seed(ctx)
        return ctx

    def set_seed(self, ctx: StepContext) -> None:
        """Seed torch's generators for a step, on several ranks those of each rank differently."""
        seed = self._seed(ctx.epoch, ctx.batch)
        if world_size() > 1:
            seed = derive_seed(seed, "rank", rank())
        # torch.manual_seed visits every kind of device, which takes 0.2 ms a step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type != "cpu":
            torch.manual_seed(seed)

    def _seed(self, epoch: int, batch: int) -> int:
        return derive_seed(self.seed, "step", epoch, batch)

    @contextmanager
    def hyperparameters(self, **tensors: Tensor) -> Iterator[None]:
        """Let the optimizer read lr and momentum from tensors."""
        groups = self.optimizer.param_groups
        before = [{name: group[name] for name in tensors} for group in groups]
        try:
            for group in groups:
                group |= tensors
            yield
        finally:
            for group, numbers in zip(groups, before, strict=True):
                group |= numbers

    def step(self, inputs: Sequence[Tensor], ctx: StepContext) -> Iterator[Tensor]:
        """Train on a batch, and yield each loss.

        A loss of an eager step is yielded before its update, so that the caller can refuse it.
        """
        graphs = self.cuda_graphs
        recorded = graphs.recorded_step(self, inputs, ctx) if graphs else None
        yield from recorded.replay(inputs, ctx) if recorded else self.eager_step(inputs, ctx)

    def eager_step(self, inputs: Sequence[Tensor], ctx: StepContext) -> Iterator[Tensor]:
        """Take the step without a CUDA graph."""
        (x, y), share = self.make_batch(inputs), ctx.share
        model = self._model_for(x)
        for loss in self.recipe.method.step(model, x, y, ctx):
            check_loss(loss)
            self.optimizer.zero_grad()
            (loss if share.weight == 1 else share.weight * loss).backward()
            yield share.mean([loss.detach()])[0]
            self.optimizer.step()
        average_statistics(self.model, share)
        self.emas.update()
        if self.compile and self.compiled_model is None:
            # From the second step on: the first shows how often each BatchNorm layer is called.
            compiled: Any = torch.compile(self.model, dynamic=False)
            self.compiled_model = self.with_autocast(compiled)

    def _model_for(self, x: Tensor) -> nn.Module:
        """The compiled model, but for a smaller last batch, for which nothing is compiled."""
        if self.compiled_model is None or len(x) < self.recipe.batch_size:
            return self.train_model
        return self.compiled_model

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the optimizer's and the EMAs' state and the method's memory."""
        return {
            "model": plain_state_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "emas": self.emas.state_dict(),
            "memory": gather_memory(self.memory),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        load_plain_state_dict(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.emas.load_state_dict(state["emas"])
        self.memory = split_memory(state["memory"], self.device)
        if self.cuda_graphs:
            self.cuda_graphs.reset()
