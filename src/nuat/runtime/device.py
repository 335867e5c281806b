"""The device of a model, and the device that a name stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.runtime.ranks import local_device


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer; cpu for a model that has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def copy_to(device: torch.device | str, values: Tensor) -> Tensor:
    """Copy a CPU tensor to a device. The host does not wait for a GPU, as the memory is pinned."""
    if torch.device(device).type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try its convolution kernels once per shape and keep the fastest.

    This pays where shapes repeat, as in training. It does not apply if the user asked cuDNN for
    deterministic kernels.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or not torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def get_device(name: torch.device | str | None) -> torch.device:
    """Return the device of this name; for None, cuda if it is available, otherwise cpu.

    Under torchrun, None and "cuda" mean the GPU of this rank.

    Raises:
        InputError: the name is invalid, or this machine has no such device.
    """
    if name in (None, "cuda"):
        name = local_device() or name
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(name, torch.device):
        return name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}: write cuda, cuda:1 or cpu") from None
    try:
        float(torch.zeros(1, device=device) + 1)  # "meta" makes tensors, but computes nothing
    except Exception as error:  # a backend that is not installed raises errors of any kind
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"there is no device {str(name)!r} here: {first_line}") from None
    return device
