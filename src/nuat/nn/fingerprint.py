"""A hash of weights: which network a result is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nuat.nn.freeze import unwrap_model


def fingerprint(f: nn.Module) -> str:
    """A hash of the network's weights and buffers: which network a result is about."""
    return digest(unwrap_model(f).state_dict())


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
