"""What an attack does to a few images, as pictures."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from nuat.attacks import Attack, is_robust
from nuat.data import ImageDataset, class_balanced
from nuat.nn.freeze import frozen_eval
from nuat.nn.validation import check_logits
from nuat.rng import PerImageNoise, derive_seed
from nuat.runtime.device import device_of
from nuat.threat_models import Ball, Linf

SIDE = 96
"""Images smaller than this, in pixels, are enlarged by whole numbers up to it."""


@dataclass(frozen=True)
class GalleryItem:
    """An image before and after an attack.

    Attributes:
        id: its place among the images.
        label: its true class.
        clean, perturbation, adversarial: PNG as data URIs; no perturbation is grey.
        factor: how many times the perturbation is magnified.
        predicted, confidence: the class given to the clean image, and its softmax probability.
        predicted_adv, confidence_adv: the same for the adversarial image.
        right: whether the clean image is given its true class.
        stands: whether the adversarial image is given it too, or is outside the ball.
    """

    id: int
    label: str
    clean: str
    perturbation: str
    adversarial: str
    factor: float
    predicted: str
    confidence: float
    predicted_adv: str
    confidence_adv: float
    right: bool
    stands: bool


def gallery(
    f: nn.Module,
    images: ImageDataset,
    classes: Sequence[str],
    ball: Ball,
    attack: Attack,
    count: int = 6,
    seed: int = 0,
) -> list[GalleryItem]:
    """Attack a few images, of as many classes as there are, those classified rightly first.

    Which images, and the noise, are functions of the seed: galleries of several networks show the
    same images wherever the networks are right about them.

    Raises:
        InputError: the images do not fit the network or the classes.
    """
    images.check(len(classes))
    check_logits(f, images.batch(torch.arange(1))[0].to(device_of(f)), len(classes))
    ids = _choose(f, images, min(count, len(images)), seed)
    x, y = (part.to(device_of(f)) for part in images.batch(ids))
    x_adv = attack(f, x, y, PerImageNoise(seed, ids, "gallery"))
    standing = is_robust(f, x, y, x_adv, ball).tolist()
    factor = 0.5 / _reach(x_adv - x, ball)
    before, after = _verdicts(f, x), _verdicts(f, x_adv)
    shown = zip(_pictures(x), _pictures(0.5 + factor * (x_adv - x)), _pictures(x_adv), strict=True)
    return [
        GalleryItem(
            id=int(ids[i]),
            label=classes[int(y[i])],
            clean=clean,
            perturbation=perturbation,
            adversarial=adversarial,
            factor=factor,
            predicted=classes[before[i][0]],
            confidence=before[i][1],
            predicted_adv=classes[after[i][0]],
            confidence_adv=after[i][1],
            right=before[i][0] == int(y[i]),
            stands=standing[i],
        )
        for i, (clean, perturbation, adversarial) in enumerate(shown)
    ]


def _choose(f: nn.Module, images: ImageDataset, count: int, seed: int) -> Tensor:
    """Places of images: rightly classified first, then evenly over classes, in order of class."""
    seed = derive_seed(seed, "gallery")
    pool = class_balanced(images.y, min(len(images), 40 * count), seed)
    x, y = images.batch(pool)
    labels = y.tolist()
    guesses = [guess for part in x.split(100) for guess, _ in _verdicts(f, part.to(device_of(f)))]
    right = [guess == label for guess, label in zip(guesses, labels, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(max(labels) + 1, generator=generator).tolist()
    order = torch.randperm(len(pool), generator=generator).tolist()
    seen, rank = Counter[tuple[int, bool]](), {}
    for i in order:
        rank[i] = (not right[i], seen[labels[i], right[i]], classes[labels[i]])
        seen[labels[i], right[i]] += 1
    chosen = sorted(order, key=rank.__getitem__)[:count]
    return pool[sorted(chosen, key=lambda i: (labels[i], i))]


def _verdicts(f: nn.Module, x: Tensor) -> list[tuple[int, float]]:
    """For each image the class and its softmax probability."""
    with frozen_eval(f) as g, torch.no_grad():
        confidence, guess = g(x).softmax(1).max(1)
    return list(zip(guess.tolist(), confidence.tolist(), strict=True))


def _reach(delta: Tensor, ball: Ball) -> float:
    """What is shown as black or white: eps, or for other norms the largest change of a pixel."""
    reach = ball.eps if isinstance(ball, Linf) else float(delta.abs().max())
    return reach or 0.5


def _pictures(x: Tensor) -> list[str]:
    """Images in [0, 1] [B, C, H, W] as PNG data URIs; in grey unless they have three channels."""
    levels = (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    colour = levels.shape[1] == 3
    grey = levels if levels.shape[1] in (1, 3) else levels.float().mean(1, True).to(torch.uint8)
    shown = grey.permute(0, 2, 3, 1) if colour else grey[:, 0]
    return [_data_uri(Image.fromarray(each.contiguous().numpy())) for each in shown]


def _data_uri(image: Image.Image) -> str:
    factor = max(1, SIDE // max(image.size))
    size = (image.width * factor, image.height * factor)
    file = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
