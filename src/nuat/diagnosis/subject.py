"""What all checks share: the network, the images, and which of them withstand an attack."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import PGD, Attack, is_correct, logits
from nuat.data import ImageDataset
from nuat.evaluation import evaluate
from nuat.evaluation.sanity_checks import unchanged_gradient
from nuat.losses import ce_per_image
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.runtime.signals import OUT_OF_TIME, Stopped
from nuat.threat_models import Ball

CHUNK = 128
"""Images that are passed through the network at once outside of attacks."""

MASKED = (
    "the gradients of the network lead attacks astray: look for a layer that quantizes, clips, "
    "saturates or draws random numbers, replace its gradient by that of a smooth function (BPDA, "
    "EOT), and report autoattack instead of PGD"
)
STRONGER = "PGD-20 is too weak for this network: report autoattack"


@dataclass
class Subject:
    """The network under diagnosis, and the images on which it is attacked.

    Attributes:
        model: the network.
        images: the data set, with the labels of the network.
        indices: the N images of the sample.
        ball: the threat model.
        classes: K, the number of logits.
        seed: the seed of all noise.
        source: another network, whose adversarial images are tried on this one, or None.
        ends: when `max_time` is over, by `time.monotonic`; None for no limit.
        x, y: the images [N, C, H, W] and their labels [N].
        z: logits [N, K] of the images.
        gradient: the gradient of the cross-entropy at the images, [N, C, H, W]; a text, which is
            the reason, if no gradient reaches them.
    """

    model: nn.Module
    images: ImageDataset
    indices: list[int]
    ball: Ball
    classes: int
    seed: int
    source: nn.Module | None = None
    ends: float | None = None
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)
    z: Tensor = field(init=False)
    gradient: Tensor | str = field(init=False)
    _robust: dict[Attack, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.x, self.y = self.images.batch(torch.tensor(self.indices))
        self.z = self.logits(self.x)
        self.gradient = self.input_gradient(self.x, ce_per_image)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def robust_to_pgd(self) -> Tensor:
        """Whether each image withstands every attack so far that takes several steps, [N] bool."""
        return self._robust_to(lambda attack: type(attack) is PGD)

    @property
    def robust_to_all(self) -> Tensor:
        """Whether each image withstands every attack on `ball` so far, [N] bool."""
        return self._robust_to(lambda attack: True)

    def _robust_to(self, chosen: Callable[[Attack], bool]) -> Tensor:
        robust = is_correct(self.z, self.y)
        for attack, withstands in self._robust.items():
            if attack.ball == self.ball and chosen(attack):
                robust = robust & withstands
        return robust

    @property
    def has_gradients(self) -> bool:
        """Whether a gradient reaches the images, be it zero."""
        return isinstance(self.gradient, Tensor)

    def noise(self, name: str) -> PerImageNoise:
        """The noise of the images for a named part of the diagnosis."""
        ids = torch.tensor(self.indices, device=self.x.device)
        return PerImageNoise(self.seed, ids, "diagnosis", name)

    def logits(self, x: Tensor) -> Tensor:
        """Logits [M, K] of images x [M, C, H, W], in batches of `CHUNK`."""
        return torch.cat([logits(self.model, part) for part in x.split(CHUNK)])

    def input_gradient(self, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor | str:
        """The gradient of a loss [N] at images x [N, C, H, W], or why there is none."""
        parts = []
        with frozen_eval(self.model) as frozen_model:
            for part, y in zip(x.split(CHUNK), self.y.split(CHUNK), strict=True):
                gradient = unchanged_gradient(frozen_model, part, y, loss)
                if isinstance(gradient, str):
                    return gradient
                parts.append(gradient)
        return torch.cat(parts)

    def robust(self, attack: Attack) -> Tensor:
        """Whether each image is classified correctly and withstands the attack, [N] bool.

        Raises:
            Stopped: `max_time` was over before the end of the attack.
        """
        if attack not in self._robust:
            name = type(attack).__name__.lower()
            with self._time_left() as limits:
                result = evaluate(
                    self.model, self.images, attack.ball, {name: attack}, classes=self.classes,
                    indices=self.indices, seed=self.seed, **limits,
                )  # fmt: skip
            self._robust[attack] = torch.tensor(result.robust[name], device=self.y.device)
        return self._robust[attack]

    def perturb(self, attack: Attack, model: nn.Module | None = None) -> Tensor:
        """The points x_adv [N, C, H, W] that an attack on the network, or on another, returns."""
        noise, parts = self.noise(repr(attack)), []
        for rows in torch.arange(len(self), device=self.y.device).split(CHUNK):
            self.check_time()
            x, y = self.x[rows], self.y[rows]
            parts.append(attack(model or self.model, x, y, noise.select(rows)))
        return torch.cat(parts)

    def accuracy(self, attack: Attack) -> float:
        """The robust accuracy under an attack."""
        return share(self.robust(attack))

    @contextmanager
    def _time_left(self) -> Iterator[dict[str, Any]]:
        """The arguments with which `evaluate` stops in time; it needs a folder to do so."""
        if self.ends is None:
            yield {}
            return
        with tempfile.TemporaryDirectory() as folder:
            yield {"max_time": max(0.0, self.ends - time.monotonic()), "out": folder}

    def check_time(self) -> None:
        """Raise Stopped if `max_time` is over."""
        if self.ends is not None and time.monotonic() > self.ends:
            raise Stopped("the time is over", OUT_OF_TIME)


def pgd(ball: Ball, **settings: Any) -> PGD:
    """PGD of which any iterate counts, so that more steps never succeed on fewer images."""
    return PGD(ball, success_at="any", **settings)


def share(condition: Tensor) -> float:
    """The fraction of images for which a condition [N] holds; NaN of no image."""
    return float(condition.double().mean())
