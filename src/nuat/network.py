"""Around a network: name its device and its weights, freeze it, fill up its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nuat.batchnorm import statistics_untouched
from nuat.errors import InputError


def bare(f: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return f.module if isinstance(f, DistributedDataParallel) else f


def device_of(f: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; cpu for a network that has none."""
    tensors = (*f.parameters(), *f.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def device_named(name: torch.device | str | None) -> torch.device:
    """The device of this name; without one, cuda if there is one, or else cpu.

    Raises InputError if there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(name, torch.device):
        return name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}: write cuda, cuda:1 or cpu") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"there is no device {str(name)!r} here: {first_line}") from None
    return device


def fingerprint(f: nn.Module) -> str:
    """A hash of the network's weights and buffers: which network a result is about."""
    return digest(bare(f).state_dict())


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def frozen(f: nn.Module, training: bool = False) -> Iterator[nn.Module]:
    """The network as an attack sees it: bare, in eval mode, its weights asking for no gradient.

    With `training` it is in train mode: BatchNorm uses the statistics of the batch, and still
    leaves its running ones alone. Modes and `requires_grad` come back as they were, module by
    module, also after an error.
    """
    g = bare(f)
    modes = [(module, module.training) for module in g.modules()]
    live = [weight for weight in g.parameters() if weight.requires_grad]
    try:
        g.train(training)
        for weight in live:
            weight.requires_grad_(False)
        with statistics_untouched(g):
            yield g
    finally:
        for weight in live:
            weight.requires_grad_(True)
        for module, was_training in modes:
            module.training = was_training


LEAST = 8
"""Images in the smallest batch that an evaluation gives to a network."""


def at_least(g: nn.Module, x: Tensor, least: int = LEAST) -> Tensor:
    """g(x), a short batch filled up with copies of its first image that are left out again.

    Below about five images the linear-algebra libraries take other roads, which round otherwise;
    above, an image's logits are the same bits in whatever batch it comes.
    """
    short = least - len(x)
    if short <= 0 or not len(x):
        return g(x)
    return g(torch.cat([x, x[:1].detach().expand(short, *x.shape[1:])]))[: len(x)]
