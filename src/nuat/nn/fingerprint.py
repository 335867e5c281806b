"""Hashes of weights, which tell what network a result belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nuat.nn.state_dict import plain_state_dict


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the parameters and buffers of a network, 16 hexadecimal digits."""
    return digest(plain_state_dict(model))


def digest(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of named tensors, in the order of the mapping."""
    blake = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        blake.update(name.encode())
        blake.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return blake.hexdigest()
