"""Hashes of weights, which tell what network a result belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nuat.nn.state_dict import plain_state_dict

PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.Size, torch.device)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the state dict of a network, 16 hexadecimal digits.

    Of entries that are neither tensors nor plain values, such as the extra state of a module that
    is an object, only the class counts.
    """
    return digest(plain_state_dict(model))


def digest(weights: Mapping[str, Any]) -> str:
    """Return a hash of named tensors and plain values, in the order of the mapping."""
    blake = hashlib.blake2b(digest_size=8)
    for name, value in weights.items():
        blake.update(name.encode())
        for part in _contents(value):
            blake.update(part)
    return blake.hexdigest()


def _contents(value: Any) -> Iterator[Any]:
    """Yield the bytes of a tensor, of a plain value, or of all that a collection contains."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_quantized:
            yield f"{value.qscheme()} {_quantization(value)}".encode()
            value = value.int_repr()
        yield value.to_dense().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        yield from _contents(list(value.items()))
    elif isinstance(value, tuple | list):
        yield f"[{len(value)}]".encode()
        for each in value:
            yield from _contents(each)
    elif value is None or isinstance(value, PLAIN):
        yield repr(value).encode()
    else:
        yield type(value).__qualname__.encode()


def _quantization(value: Tensor) -> list[Any]:
    """Return the scales and zero points of a quantized tensor."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [value.q_scale(), value.q_zero_point()]
    return [value.q_per_channel_scales().tolist(), value.q_per_channel_zero_points().tolist()]
