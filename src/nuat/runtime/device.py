"""The device a network is on, and the device a user names."""

from __future__ import annotations

import torch
from torch import nn

from nuat.errors import InputError


def device_of(f: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; cpu for a network that has none."""
    tensors = (*f.parameters(), *f.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def get_device(name: torch.device | str | None) -> torch.device:
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
