"""A few images before and after an attack."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from nuat.attacks import Attack, Ensemble, is_robust
from nuat.data import ImageDataset, class_balanced
from nuat.data.classes import match_classes
from nuat.nn.freeze import frozen_eval
from nuat.nn.validation import check_logits
from nuat.rng import PerImageNoise, derive_seed
from nuat.runtime.device import device_of
from nuat.threat_models import Ball, Linf

SIDE = 96
"""Smaller images are enlarged by a whole number up to this side, in pixels."""


@dataclass(frozen=True)
class GalleryItem:
    """An image before and after an attack.

    Attributes:
        label: the true class of the image that has this `index` in the data set.
        clean, perturbation, adversarial: PNG as data URIs; gray means no perturbation.
        factor: the factor by which the perturbation is magnified.
        predicted, confidence: the predicted class of the clean image and its softmax probability.
        predicted_adv, confidence_adv: the same for the adversarial image.
        correct, robust: whether the clean image is classified correctly, and the adversarial one
            too; an image outside the ball counts as robust.
    """

    index: int
    label: str
    clean: str
    perturbation: str
    adversarial: str
    factor: float
    predicted: str
    confidence: float
    predicted_adv: str
    confidence_adv: float
    correct: bool
    robust: bool


def build_gallery(
    model: nn.Module,
    images: ImageDataset,
    classes: Sequence[str],
    ball: Ball,
    attack: Attack | Ensemble,
    count: int = 6,
    seed: int = 0,
) -> list[GalleryItem]:
    """Attack `count` images of different classes, correctly classified ones first.

    The seed determines the order of the images and the noise, so that galleries of several models
    show the same images as far as the models classify them correctly.

    Raises:
        InputError: the images do not fit the model or the classes.
    """
    images, _ = match_classes(images, classes)
    images.check(len(classes))
    check_logits(model, images.batch(torch.arange(1))[0].to(device_of(model)), len(classes))
    indices = _choose(model, images, min(count, len(images)), seed)
    x, y = (part.to(device_of(model)) for part in images.batch(indices))
    x_adv = attack(model, x, y, PerImageNoise(seed, indices, "gallery"))
    robust = is_robust(model, x, y, x_adv, ball).tolist()
    factor = 0.5 / _max_change(x_adv - x, ball)
    before, after = _predict(model, x), _predict(model, x_adv)
    magnified = 0.5 + factor * (x_adv - x)
    images_png = zip(_to_png(x), _to_png(magnified), _to_png(x_adv), strict=True)
    return [
        GalleryItem(
            index=int(indices[i]),
            label=classes[int(y[i])],
            clean=clean,
            perturbation=perturbation,
            adversarial=adversarial,
            factor=factor,
            predicted=classes[before[i][0]],
            confidence=before[i][1],
            predicted_adv=classes[after[i][0]],
            confidence_adv=after[i][1],
            correct=before[i][0] == int(y[i]),
            robust=robust[i],
        )
        for i, (clean, perturbation, adversarial) in enumerate(images_png)
    ]


def _choose(model: nn.Module, images: ImageDataset, count: int, seed: int) -> Tensor:
    """Choose indices: correctly classified images first, evenly over classes, sorted by class."""
    seed = derive_seed(seed, "gallery")
    pool = class_balanced(images.y, min(len(images), 40 * count), seed)
    x, y = images.batch(pool)
    labels = y.tolist()
    batches = (x[i : i + 100].to(device_of(model)) for i in range(0, len(x), 100))
    predictions = [predicted for batch in batches for predicted, _ in _predict(model, batch)]
    correct = [p == label for p, label in zip(predictions, labels, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(max(labels) + 1, generator=generator).tolist()
    order = torch.randperm(len(pool), generator=generator).tolist()
    seen, rank = Counter[tuple[int, bool]](), {}
    for i in order:
        rank[i] = (not correct[i], seen[labels[i], correct[i]], classes[labels[i]])
        seen[labels[i], correct[i]] += 1
    chosen = sorted(order, key=rank.__getitem__)[:count]
    return pool[sorted(chosen, key=lambda i: (labels[i], i))]


def _predict(model: nn.Module, x: Tensor) -> list[tuple[int, float]]:
    """Return the predicted class of each image and its softmax probability."""
    with frozen_eval(model) as frozen_model, torch.no_grad():
        confidence, predicted = frozen_model(x).softmax(1).max(1)
    return list(zip(predicted.tolist(), confidence.tolist(), strict=True))


def _max_change(delta: Tensor, ball: Ball) -> float:
    """Return the change that is shown as black or white: eps or, for other norms, the largest."""
    change = ball.eps if isinstance(ball, Linf) else float(delta.abs().max())
    return change or 0.5


def _to_png(x: Tensor) -> list[str]:
    """Convert x [B, C, H, W] in [0, 1] to PNG data URIs, in gray unless there are 3 channels."""
    levels = (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    color = levels.shape[1] == 3
    gray = levels if levels.shape[1] in (1, 3) else levels.float().mean(1, True).to(torch.uint8)
    pixels = gray.permute(0, 2, 3, 1) if color else gray[:, 0]
    return [_data_uri(Image.fromarray(image.contiguous().numpy())) for image in pixels]


def _data_uri(image: Image.Image) -> str:
    factor = max(1, SIDE // max(image.size))
    size = (image.width * factor, image.height * factor)
    file = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
