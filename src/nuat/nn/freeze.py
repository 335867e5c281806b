"""A network as an attack sees it: unwrapped, in eval mode, its weights frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nuat.nn.batchnorm import freeze_bn_stats


def unwrap_model(f: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return f.module if isinstance(f, DistributedDataParallel) else f


@contextmanager
def frozen_eval(f: nn.Module, training: bool = False) -> Iterator[nn.Module]:
    """The network as an attack sees it: bare, in eval mode, its weights asking for no gradient.

    With `training` it is in train mode: BatchNorm uses the statistics of the batch, and still
    leaves its running ones alone. Modes and `requires_grad` come back as they were, module by
    module, also after an error.
    """
    g = unwrap_model(f)
    modes = [(module, module.training) for module in g.modules()]
    live = [weight for weight in g.parameters() if weight.requires_grad]
    try:
        g.train(training)
        for weight in live:
            weight.requires_grad_(False)
        with freeze_bn_stats(g):
            yield g
    finally:
        for weight in live:
            weight.requires_grad_(True)
        for module, was_training in modes:
            module.training = was_training


MIN_BATCH = 8
"""Images in the smallest batch that an evaluation gives to a network."""


def forward_padded(g: nn.Module, x: Tensor, least: int = MIN_BATCH) -> Tensor:
    """g(x), a short batch filled up with copies of its first image that are left out again.

    Below about five images the linear-algebra libraries take other roads, which round otherwise;
    above, an image's logits are the same bits in whatever batch it comes.
    """
    short = least - len(x)
    if short <= 0 or not len(x):
        return g(x)
    return g(torch.cat([x, x[:1].detach().expand(short, *x.shape[1:])]))[: len(x)]
