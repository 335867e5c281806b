"""The logits of one fixed image, stored beside the weights and checked when they are loaded.

Models with equal names and equal state dicts may compute different functions, for example with
another activation. The logits of a fixed image tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nuat.checkpoints.fields import WeightsMetadata
from nuat.errors import InputError
from nuat.nn.freeze import frozen_eval
from nuat.runtime.device import device_of
from nuat.runtime.precision import full_precision

GOLDEN_RATIO = 0.6180339887498949
TOLERANCE = 0.02
"""Allowed difference, relative to the largest logit (at least 0.01).

It is larger than rounding on another device, and smaller than the effect of another function.
"""


def probe_image(channels: int, height: int, width: int) -> Tensor:
    """Return the fixed image [1, C, H, W] in [0, 1): pixel i = 1, 2, ... is frac(0.618... i)."""
    values = torch.arange(1, channels * height * width + 1, dtype=torch.float64) * GOLDEN_RATIO
    return (values % 1).float().reshape(1, channels, height, width)


def probe_metadata(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Return metadata for images of the size of `images` [B, C, H, W].

    `channels` and `image_size` describe the images; `probe_logits` are the logits of the fixed
    image, left out if they are not finite or not deterministic.
    """
    channels, *size = images.shape[1:]
    metadata = {"channels": str(channels), "image_size": json.dumps(size)}
    logits, repeated = (_probe_logits(model, channels, size) for _ in range(2))
    if torch.isfinite(logits).all() and torch.equal(logits, repeated):
        metadata["probe_logits"] = json.dumps([round(value, 6) for value in logits.tolist()])
    return metadata


def check_probe(
    model: nn.Module, metadata: WeightsMetadata, source: object, model_name: str
) -> None:
    """Raise InputError unless the model gives the stored logits for the fixed image."""
    channels, size = metadata.channels, metadata.image_size
    if metadata.probe_logits is None or channels is None or size is None:
        return
    expected = torch.tensor(metadata.probe_logits)
    try:
        logits = _probe_logits(model, channels, size)
    except RuntimeError as error:
        raise InputError(
            f"{model_name} does not accept the images of {source}, [B, {channels}, {size[0]}, "
            f"{size[1]}]: {error}"
        ) from None
    if logits.shape != expected.shape:
        raise InputError(
            f"{model_name} has {len(logits)} logits, but {source} stores {len(expected)} of them"
        )
    difference = float((logits - expected).abs().max()) / max(0.01, float(expected.abs().max()))
    if not difference <= TOLERANCE:  # also true for NaN
        raise InputError(
            f"the weights of {source} load into {model_name}, but give different logits: those of "
            f"a fixed image differ by {difference:.1%} from the ones stored with the weights. "
            "Build the model with the settings that it was trained with"
        )


@torch.no_grad()
def _probe_logits(model: nn.Module, channels: int, size: Sequence[int]) -> Tensor:
    image = probe_image(channels, *size).to(device_of(model))
    with frozen_eval(model) as frozen_model, full_precision():
        logits: Tensor = frozen_model(image)
    return logits[0].float().cpu()
