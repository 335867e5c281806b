"""Adversarial images in 8 bits: what of an attack survives saving its images as PNG files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from nuat.attacks import AttackResult, correct
from nuat.rng import derive_seed
from nuat.runtime.files import check_inside, explain_write_errors
from nuat.threat_models import Ball

PNG_CHANNELS = (1, 3)
"""The numbers of channels of images that are saved as PNG files: gray and RGB."""


class EightBitVerdicts(NamedTuple):
    """The verdicts on a batch of adversarial images rounded to 8 bits.

    Attributes:
        adversarial: whether the attack succeeds and the rounded image is misclassified, [B] bool.
        distance: the distance of the rounded image from the clean one where the attack succeeds,
            and NaN elsewhere, [B].
    """

    adversarial: Tensor
    distance: Tensor


def round_to_8_bits(x: Tensor) -> Tensor:
    """The images x in [0, 1] as a file with 8 bits per pixel and channel keeps them.

    round(255 x) / 255,   halves to the even neighbor
    """
    return (x * 255).round() / 255


def judge_8_bits(
    model: nn.Module, x: Tensor, y: Tensor, result: AttackResult, ball: Ball
) -> EightBitVerdicts:
    """Round the adversarial images of an attack to 8 bits, and classify them again.

    Rounding is plain, as in a program that saves the image. It moves each pixel by up to 0.5 / 255,
    and so may leave the ball: never in Linf if the clean image and eps are multiples of 1 / 255,
    often otherwise. Such an image counts as any other, and its distance is told. Only images that
    are adversarial before are rounded, at the cost of one forward pass each. This is ours.

    Args:
        model: the network that decides, in eval mode.
        x: clean images in [0, 1], [B, C, H, W].
        y: labels [B].
        result: the outcome of an attack on them.
        ball: the threat model, whose norm measures the distance.
    """
    adversarial = result.adversarial.clone()
    distance = x.new_full(adversarial.shape, torch.nan)
    if len(rows := adversarial.nonzero()[:, 0]):
        rounded = round_to_8_bits(result.x_adv[rows])
        adversarial[rows] = ~correct(model, rounded, y[rows])
        distance[rows] = ball.distance(rounded, x[rows]).to(x.dtype)
    return EightBitVerdicts(adversarial, distance)


def write_png_files(folder: Path, attack: str, images: Mapping[int, Tensor]) -> None:
    """Write the images x [C, H, W] of an attack, by index, as `adversarial/ATTACK/INDEX.png`.

    Their pixels are those of `round_to_8_bits`. Characters of the attack's name that a file cannot
    have everywhere become dashes, and a hash of the name follows. Images with another number of
    channels than 1 or 3 are left out.

    Raises:
        InputError: the folder is a link that leads elsewhere.
        OSError: a file cannot be written.
    """
    name = re.sub(r"[^\w]+", "-", attack)[:100]
    name = name if name == attack else f"{name}-{derive_seed(attack):x}"
    target = folder / "adversarial" / name
    check_inside(target, folder)
    target.mkdir(parents=True, exist_ok=True)
    for index, x in images.items():
        if len(x) not in PNG_CHANNELS:
            continue
        levels = (x * 255).round().to(torch.uint8)
        pixels = levels[0] if len(x) == 1 else levels.permute(1, 2, 0)
        file = target / f"{index}.png"
        with explain_write_errors(file):
            file.unlink(missing_ok=True)  # so that a link is replaced, not followed
            with file.open("xb") as png:
                Image.fromarray(pixels.contiguous().numpy()).save(png, "PNG")
