"""Training on several ranks by PyTorch's DistributedDataParallel.

Of every batch, rank r of W trains on the images r, r + W, r + 2 W, ... All ranks draw the same
order, and the noise of the whole batch, of which each takes its own rows. BatchNorm's running
statistics are averaged after every step. So all ranks have the same state, bit for bit, and a run
on several ranks differs from one process by rounding, and by what BatchNorm normalizes with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nuat.checkpoints.run import identifying_fields
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.methods.share import BatchShare
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict
from nuat.recipes import Recipe
from nuat.rng import Noise
from nuat.runtime.ranks import all_gather_rows, from_first, rank, world_size


@dataclass(frozen=True)
class RankShare(BatchShare):
    """The images rank, rank + W, rank + 2 W, ... of a batch, on one of W ranks.

    Attributes:
        total: the number of images of the whole batch.
        gathers: whether `gather` returns the rows of the whole batch, or those of this share alone.
    """

    total: int
    gathers: bool = True

    @property
    def weight(self) -> float:
        """The weight of this rank's loss in the mean over the ranks; 1 if all shares are equal."""
        own = len(range(rank(), self.total, world_size()))
        return own * world_size() / self.total

    def gather(self, rows: Tensor) -> Tensor:
        return _Gather.apply(rows, self) if self.gathers else rows  # type: ignore[no-untyped-call]

    def mean(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        return self.average_gradients([self.weight * value.detach() for value in values])

    def average_gradients(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) / world_size()
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        return [part.view(each.shape) for part, each in zip(parts, gradients, strict=True)]


class _Gather(torch.autograd.Function):
    """The rows of all ranks.

    Every rank computes the same function of them, so the backward pass needs no communication: it
    takes this rank's rows. The factor cancels the mean over the ranks and the weight of the loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: RankShare) -> Tensor:
        longest = -(-share.total // world_size())
        padding = rows.new_zeros(longest - len(rows), *rows.shape[1:])
        gathered = all_gather_rows(torch.cat([rows, padding]))
        ctx.factor = share.total / len(rows)
        return torch.stack(gathered, dim=1).flatten(0, 1)[: share.total]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[rank() :: world_size()] * ctx.factor, None


class RankNoise(Noise):
    """The rows of this rank of the noise that one process would draw for the whole batch."""

    def __init__(self, seed: int, total: int, device: torch.device):
        """`total` is the number of images of the whole batch."""
        self.total = total
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, x: Tensor) -> Tensor:
        return self._own(self._whole(x).uniform_(generator=self.generator))

    def sign(self, x: Tensor) -> Tensor:
        whole = self._whole(x).bernoulli_(0.5, generator=self.generator)
        return self._own(whole.mul_(2).sub_(1))

    def normal(self, x: Tensor) -> Tensor:
        return self._own(self._whole(x).normal_(generator=self.generator))

    def select(self, indices: Tensor) -> Noise:
        # which images are left differs from rank to rank: from here on each draws for itself
        return Noise()

    def _whole(self, x: Tensor) -> Tensor:
        return x.new_empty((self.total, *x.shape[1:]))

    def _own(self, whole: Tensor) -> Tensor:
        return whole[rank() :: world_size()]


def rank_noise(share: BatchShare, seed: int, device: torch.device) -> Noise:
    """The noise of a step on a share of its batch; that of torch's generator on a whole batch."""
    return RankNoise(seed, share.total, device) if isinstance(share, RankShare) else Noise()


def share_of_batch(recipe: Recipe, num_images: int, batch: int) -> BatchShare:
    """The share that this process has of a batch of an epoch of `num_images` images."""
    if world_size() == 1:
        return BatchShare()
    total = min(recipe.batch_size, num_images - batch * recipe.batch_size)
    return RankShare(total, gathers=recipe.nuclear_norm == "gather")


def norm_batch_size(recipe: Recipe) -> int:
    """The number of images that a norm of the batch sees: all, or those of one rank."""
    local = recipe.nuclear_norm == "local"
    return -(-recipe.batch_size // world_size()) if local else recipe.batch_size


def check_ranks(num_images: int, batch_size: int, device: torch.device, batchnorm: str) -> None:
    """Raise InputError if a rank would have no image of some batch, or cannot synchronize."""
    smallest = num_images % batch_size or batch_size
    if smallest < world_size():
        raise InputError(
            f"{num_images} training images in batches of {batch_size} make a batch of {smallest}, "
            f"too few for {world_size()} ranks: choose another batch size (--set batch_size=N) or "
            "fewer ranks"
        )
    if world_size() > 1 and batchnorm == "sync" and device.type != "cuda":
        raise InputError(
            f"batchnorm=sync needs GPUs, as torch's SyncBatchNorm does, but the device is {device}:"
            " choose --set batchnorm=local"
        )


def check_gradients(model: nn.Module) -> None:
    """Raise InputError if a loss gave a weight no gradient, for which the ranks would wait."""
    for name, weight in model.named_parameters():
        if world_size() > 1 and weight.requires_grad and weight.grad is None:
            raise InputError(
                f"the loss does not depend on {name}, so the ranks would wait for its gradient: "
                "call requires_grad_(False) on weights that the network does not use"
            )


def check_same_run(config: dict[str, Any]) -> None:
    """Raise InputError on every rank unless all ranks have the same recipe, data and model."""
    if world_size() == 1:
        return
    own = identifying_fields(config)
    of_ranks: list[Any] = [None] * world_size()
    dist.all_gather_object(of_ranks, own)
    for other, fields in enumerate(of_ranks):
        if differences := diff(fields, of_ranks[0]):
            raise InputError(
                f"rank {other} (here) and rank 0 (there) would train different runs; they differ "
                f"in {'; '.join(differences)}"
            )


def prepare_model(model: nn.Module, batchnorm: str) -> None:
    """Give the model the weights and buffers of rank 0, and SyncBatchNorm if it is asked for."""
    if world_size() == 1:
        return
    weights = from_first(lambda: {k: v.cpu() for k, v in plain_state_dict(model).items()})
    load_plain_state_dict(model, weights)
    if batchnorm == "sync":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def wrap_model(model: nn.Module, x: Tensor) -> nn.Module:
    """Wrap a model so that the ranks average the gradients of its weights.

    The first backward pass decides in which order the wrapper adds up gradients. It is taken here,
    on the images x, so that a resumed run adds them up as an uninterrupted one does.
    """
    with warnings.catch_warnings():
        # torch 2.13 gives this setting a second name, which torch 2.11 does not know
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    model.eval()
    wrapped(x).sum().backward()
    wrapped.zero_grad()
    model.train()
    return wrapped


def average_statistics(model: nn.Module, share: BatchShare) -> None:
    """Set BatchNorm's running statistics to their means over the ranks.

    Those of SyncBatchNorm are the same on all ranks.
    """
    if world_size() == 1:
        return
    layers = [m for m in model.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]
    statistics = [
        tensor
        for layer in layers
        if not isinstance(layer, nn.SyncBatchNorm)
        for tensor in (layer.running_mean, layer.running_var)
    ]
    if statistics:
        torch._foreach_copy_(statistics, list(share.mean(statistics)))  # type: ignore[arg-type]


def gather_memory(memory: dict[str, Any]) -> dict[str, Any]:
    """Return a method's memory with the rows of all ranks, on the CPU.

    A tensor in it holds one row for each image of a batch; the images are shared out as in
    `RankShare`.
    """
    if world_size() == 1 or not any(map(_has_rows, memory.values())):
        return memory
    on_cpu = {name: value.cpu() if _has_rows(value) else value for name, value in memory.items()}
    of_ranks: list[Any] = [None] * world_size()
    dist.all_gather_object(of_ranks, on_cpu)
    joint = dict(on_cpu)
    for name in filter(lambda name: _has_rows(memory[name]), memory):
        parts = [each[name] for each in of_ranks]
        joint[name] = torch.cat(parts)
        for r, part in enumerate(parts):
            joint[name][r :: world_size()] = part
    return joint


def split_memory(memory: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return this rank's rows of what `gather_memory` returned, on a device."""
    return {
        name: value[rank() :: world_size()].to(device) if _has_rows(value) else value
        for name, value in memory.items()
    }


def _has_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


__all__ = [
    "RankNoise",
    "RankShare",
    "average_statistics",
    "check_gradients",
    "check_ranks",
    "check_same_run",
    "gather_memory",
    "norm_batch_size",
    "prepare_model",
    "rank_noise",
    "share_of_batch",
    "split_memory",
    "wrap_model",
]
