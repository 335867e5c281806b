"""What a network says to one fixed image: two networks of the same weights may differ in it.

A name does not tell everything about a network, and weights fit many that compute something else.
So the logits of one image are kept beside the weights, and looked at when they are read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.nn.freeze import frozen_eval
from nuat.runtime.device import device_of

GOLDEN = 0.6180339887498949
TOLERANCE = 0.02
"""Of the largest logit, or of 0.01: above rounding, and below what another function does."""


def fixed_image(channels: int, height: int, width: int) -> Tensor:
    """One image [1, C, H, W], the same everywhere: value i is the fraction of i times 0.618..."""
    values = torch.arange(1, channels * height * width + 1, dtype=torch.float64) * GOLDEN
    return (values % 1).float().reshape(1, channels, height, width)


def probe_metadata(f: nn.Module, images: Tensor) -> dict[str, str]:
    """The size of images such as these, and the network's answer: if finite, and twice the same."""
    channels, *size = images.shape[1:]
    about = {"channels": str(channels), "size": json.dumps(size)}
    first, second = (_answer(f, channels, size) for _ in range(2))
    if torch.isfinite(first).all() and torch.equal(first, second):
        about["answer"] = json.dumps([round(value, 6) for value in first.tolist()])
    return about


def check_answer(f: nn.Module, about: Mapping[str, str], source: object, model: str) -> None:
    """Raise InputError unless the network answers as it did when its weights were written."""
    if "answer" not in about:
        return
    expected = torch.tensor(json.loads(about["answer"]))
    try:
        found = _answer(f, int(about["channels"]), json.loads(about["size"]))
    except RuntimeError as error:
        raise InputError(f"{source}: {model} does not take its images: {error}") from None
    off = float((found - expected).abs().max()) / max(0.01, float(expected.abs().max()))
    if not off <= TOLERANCE:
        raise InputError(
            f"{source} fits {model} but belongs to another network: the logits of a fixed image "
            f"differ by {off:.1%} from those written beside the weights. Build the network as it "
            "was when it was trained, with the same settings"
        )


@torch.no_grad()
def _answer(f: nn.Module, channels: int, size: list[int]) -> Tensor:
    cudnn = torch.backends.cudnn
    with frozen_eval(f) as g, cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
        logits: Tensor = g(fixed_image(channels, *size).to(device_of(f)))
    return logits[0].float().cpu()
