"""Clean and robust accuracy, image by image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import Attack, attack, stands
from nuat.data import Source, class_balanced, images_of
from nuat.errors import InputError
from nuat.network import check_logits, device_of, fingerprint, frozen
from nuat.noise import Keyed, seed_of
from nuat.progress import Progress
from nuat.threat import Ball
from nuat.values import describe
from nuat.versions import versions

ATTACKS = ("pgd-20", "pgd-100(restarts=5)", "gama-100")
"""What is run when nothing else is asked for."""


@dataclass(frozen=True)
class Scores:
    """What became of each image under each attack, alone.

    Attributes:
        ids: the images' places in their split.
        labels, predicted: the true class and the one given to the clean image.
        standing: for each attack, whether each image was classified rightly and withstood it.
        seconds: for each attack, how long it took.
        ball, attacks, seed, network, versions: what the figures were made with; `network` is a
            fingerprint of its weights.
    """

    ids: list[int]
    labels: list[int]
    predicted: list[int]
    standing: dict[str, list[bool]]
    seconds: dict[str, float]
    ball: str
    attacks: dict[str, Any]
    seed: int
    network: str
    versions: dict[str, str]

    @property
    def clean(self) -> float:
        """Share of images classified rightly."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return sum(label == guess for label, guess in pairs) / len(self.labels)

    def robust(self, name: str) -> float:
        """Share of images that withstood this attack."""
        return sum(self.standing[name]) / len(self.labels)

    @property
    def worst(self) -> float:
        """Share of images that withstood every attack."""
        return sum(all(verdicts) for verdicts in zip(*self.standing.values(), strict=True)) / len(
            self.labels
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: the fields, with the accuracies beside them."""
        robust = {name: self.robust(name) for name in self.standing}
        summary = {"images": len(self.ids), "clean": self.clean, "robust": robust}
        return {**summary, "worst": self.worst, **asdict(self)}

    @staticmethod
    def from_dict(scores: Mapping[str, Any]) -> Scores:
        """The scores that `as_dict` wrote down. Raises InputError if a part is missing."""
        missing = [name for name in Scores.__dataclass_fields__ if name not in scores]
        if missing:
            raise InputError(
                f"these scores lack {', '.join(missing)}: made by another version; evaluate again"
            )
        return Scores(**{name: scores[name] for name in Scores.__dataclass_fields__})


def evaluate(
    f: nn.Module,
    images: Any,
    ball: Ball,
    attacks: str | Sequence[str] | Mapping[str, Attack] = ATTACKS,
    *,
    classes: int | None = None,
    samples: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    quiet: bool = True,
) -> Scores:
    """Attack a network and say which images stand.

    Noise is keyed to the image, so a verdict does not depend on batch size or order. Everything is
    computed in float32 with TF32 off. An image falls only to a point that is finite, in [0, 1],
    within eps + 1e-6, and misclassified.

    Args:
        f: a network, images in [0, 1] [B, C, H, W] to logits [B, K].
        images: Images, a pair of tensors, a torch Dataset or DataLoader, or any iterable of (x, y)
            in [0, 1]; see `nuat.data.images_of`.
        ball: the threat model.
        attacks: names such as "pgd-20", or {name: Attack}.
        classes: K; by default what the network returns.
        samples: only so many images, balanced over the classes, drawn by the seed.
        batch_size: images attacked at once.
        seed: of the attacks' noise and of the samples.
        quiet: no progress bar.

    Raises:
        InputError: something given cannot be used.
    """
    images = images_of(images).to(device_of(f))
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but must be a whole number from 1 up")
    if isinstance(attacks, str):
        attacks = [attacks]
    if not isinstance(attacks, Mapping):
        attacks = {name: attack(name, ball) for name in attacks}
    if not attacks:
        raise InputError("no attack was given, such as 'pgd-20'")
    for name, each in attacks.items():
        if each.ball != ball:
            raise InputError(f"{name} attacks within {each.ball}, not within {ball} as asked")
    images.check()
    classes = check_logits(f, images.batch(torch.arange(min(2, len(images))))[0], classes)
    images.check(classes)
    ids = torch.arange(len(images))
    if samples is not None:
        ids = class_balanced(images.y, samples, seed_of(seed, "samples"))
    with (
        _full_precision(),
        Progress("attacking", len(ids) * len(attacks), hidden=quiet) as progress,
    ):
        predicted = torch.cat([_predict(f, images, part) for part in ids.split(batch_size)])
        right = predicted == images.y[ids.to(images.y.device)].cpu()
        standing, seconds = {}, {}
        for name, each in attacks.items():
            begun = time.monotonic()
            standing[name] = right.clone()
            progress.advance(len(ids) - int(right.sum()), attack=name)
            for places in _parts(right.nonzero()[:, 0], batch_size):
                noise = Keyed(seed, ids[places], name)
                standing[name][places] = _withstood(f, images, ids[places], each, noise).cpu()
                progress.advance(len(places))
            seconds[name] = time.monotonic() - begun
    return Scores(
        ids=ids.tolist(),
        labels=images.y.cpu()[ids].tolist(),
        predicted=predicted.tolist(),
        standing={name: verdicts.tolist() for name, verdicts in standing.items()},
        seconds=seconds,
        ball=repr(ball),
        attacks={name: describe(each) for name, each in attacks.items()},
        seed=seed,
        network=fingerprint(f),
        versions=versions(),
    )


def _parts(places: Tensor, size: int) -> tuple[Tensor, ...]:
    return places.split(size) if len(places) else ()


def _withstood(f: nn.Module, images: Source, ids: Tensor, each: Attack, noise: Keyed) -> Tensor:
    x, y = images.batch(ids)
    return stands(f, x, y, each(f, x, y, noise), each.ball)


def _predict(f: nn.Module, images: Source, ids: Tensor) -> Tensor:
    with frozen(f) as g, torch.no_grad():
        predicted: Tensor = g(images.batch(ids)[0]).argmax(1)
    return predicted.cpu()


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 as float32: no TF32 in matrix products or convolutions."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions
