"""The frozen model that an attack runs on, and batches padded to a minimum size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nuat.nn.batchnorm import freeze_bn_stats


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside a DistributedDataParallel wrapper, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def frozen_eval(model: nn.Module, training: bool = False) -> Iterator[nn.Module]:
    """Yield the unwrapped model in eval mode, with weights that require no gradient.

    With `training=True` the model is in train mode instead: BatchNorm normalizes with the
    statistics of the batch, but does not update its running statistics. On exit, also after an
    exception, the mode of every module and the `requires_grad` of every parameter are restored.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(4, 2))
    >>> with nuat.frozen_eval(model) as frozen_model:
    ...     frozen_model(torch.rand(1, 1, 2, 2)).requires_grad, model.training
    (False, False)
    >>> model.training
    True
    """
    frozen_model = unwrap_model(model)
    modes = [(module, module.training) for module in frozen_model.modules()]
    trainable = [weight for weight in frozen_model.parameters() if weight.requires_grad]
    try:
        frozen_model.train(training)
        for weight in trainable:
            weight.requires_grad_(False)
        with freeze_bn_stats(frozen_model):
            yield frozen_model
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
        for module, was_training in modes:
            module.training = was_training


MIN_BATCH = 8
"""The smallest batch that an evaluation passes to a model."""


def forward_padded(model: nn.Module, x: Tensor, min_batch: int = MIN_BATCH) -> Tensor:
    """Return model(x); a smaller batch is padded with copies of its first image.

    For batches below about five images, BLAS uses other kernels and rounds differently. With at
    least `min_batch` images the logits of an image do not depend on the rest of its batch.
    """
    missing = min_batch - len(x)
    if missing <= 0 or not len(x):
        return model(x)
    return model(torch.cat([x, x[:1].detach().expand(missing, *x.shape[1:])]))[: len(x)]
