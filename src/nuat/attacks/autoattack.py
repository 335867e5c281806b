"""Ensembles of attacks that run one after another on the images still robust; AutoAttack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from nuat.attacks.apgd import APGD, APGDDLR, APGDT
from nuat.attacks.base import TORCH_NOISE, Attack
from nuat.attacks.criteria import is_correct, is_robust, logits
from nuat.attacks.fab import FAB, FABT
from nuat.attacks.square import Square
from nuat.errors import InputError, unknown_name
from nuat.rng import Noise
from nuat.threat_models import Ball, Linf, refuse_eps


@dataclass(frozen=True)
class Ensemble:
    """Attacks that run in order, each on the images that are still robust.

    Attributes:
        ball: the threat model, the same for every part.
        parts: pairs of a name and an attack.
        name: the name of the ensemble.
    """

    ball: Ball = Linf(8 / 255)
    parts: tuple[tuple[str, Attack], ...] = ()
    name: str = "ensemble"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        refuse_eps(cls, kwargs)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, part in self.parts:
            if part.ball != self.ball:
                raise InputError(f"{name} attacks within {part.ball}, not within {self.ball}")
            if part.batchwise:
                raise InputError(
                    f"{name} attacks whole batches and cannot be a part of {self.name}, "
                    "which drops images between its parts"
                )
            if part.snapshots:
                raise InputError(
                    f"{name} has snapshots, which are separate results: "
                    f"it cannot be a part of {self.name}"
                )
        names = [name for name, _ in self.parts]
        if len(names) != len(set(names)):
            raise InputError(f"{self.name} has two parts of the same name: {', '.join(names)}")
        if not self.parts:
            raise InputError(f"{self.name} has no parts")

    def describe(self) -> str:
        """The descriptions of the parts, those that have one."""
        texts = {name: part.describe() for name, part in self.parts}
        return "; ".join(f"{name}: {text}" for name, text in texts.items() if text)

    def applicable(self, classes: int) -> tuple[dict[str, Attack], list[str]]:
        """The parts that are defined for this number of classes, and notes on what differs.

        Raises:
            InputError: no part is defined.
        """
        defined = {name: part for name, part in self.parts if classes >= part.min_classes}
        left_out = [name for name, _ in self.parts if name not in defined]
        if not defined:
            raise InputError(f"no part of {self.name} is defined for {classes} classes")
        notes = []
        if left_out:
            notes.append(
                f"{self.name} without {', '.join(left_out)}: undefined for {classes} classes"
            )
        fewer = [name for name, part in defined.items() if part.targets > classes - 1]
        if fewer:
            notes.append(f"{self.name}: {classes - 1} targets in {', '.join(fewer)}, all there are")
        return defined, notes

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, noise: Noise = TORCH_NOISE
    ) -> Tensor:
        """Attack images `x` in [0, 1], [B, C, H, W], with labels `y` [B].

        Each image keeps the first adversarial point, or else the clean image.
        """
        z = logits(model, x)
        parts, _ = self.applicable(z.shape[1])
        x_adv, remaining = x.clone(), is_correct(z, y).nonzero()[:, 0]
        for name, part in parts.items():
            if not len(remaining):
                break
            batch = x[remaining], y[remaining]
            points = part(model, *batch, noise.fold_in(name).select(remaining))
            robust = is_robust(model, *batch, points, self.ball)
            x_adv[remaining[~robust]] = points[~robust]
            remaining = remaining[robust]
        return x_adv


STANDARD = {
    "apgd-ce": APGD,
    "apgd-t": APGDT,
    "fab-t": FABT,
    "square": Square,
}
V1 = {
    "apgd-ce": lambda ball: APGD(ball, restarts=5),
    "apgd-dlr": lambda ball: APGDDLR(ball, restarts=5),
    "fab": lambda ball: FAB(ball, restarts=5),
    "square": Square,
}
VERSIONS: Mapping[str, Mapping[str, Callable[[Ball], Attack]]] = {
    "standard": STANDARD,
    "v1": V1,
    "plus": {**V1, "apgd-t": STANDARD["apgd-t"], "fab-t": STANDARD["fab-t"]},
    "rand": {
        "apgd-ce": lambda ball: APGD(ball, eot_samples=20),
        "apgd-dlr": lambda ball: APGDDLR(ball, eot_samples=20),
    },
}


class AutoAttack(Ensemble):
    """AutoAttack: an ensemble of parameter-free attacks, each on the images still robust.

    - `standard`: APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square with 5,000 queries.
    - `v1`: the first version, "AA (v1)" in tables of 2020 and 2021: APGD-CE and APGD-DLR with 5
      restarts, untargeted FAB with 5 restarts, Square.
    - `plus`: v1, then APGD-T and FAB-T.
    - `rand`: for randomized networks: APGD-CE and APGD-DLR with gradients averaged over 20 EOT
      samples.

    With few classes some parts are undefined; see `Ensemble.applicable`. For another set of attacks
    use `Ensemble`.

    Source: arXiv:2003.01690 and its published code.

    Args:
        ball: the threat model.
        version: one of the versions above.

    Raises:
        InputError: the version is unknown.

    >>> attack = nuat.AutoAttack(nuat.Linf(8 / 255))
    >>> [name for name, _ in attack.parts]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """

    def __init__(self, ball: Ball, version: str = "standard"):
        if version not in VERSIONS:
            raise unknown_name("version of autoattack", version, VERSIONS)
        parts = tuple((name, make(ball)) for name, make in VERSIONS[version].items())
        super().__init__(ball, parts, version_name(version))


def version_name(version: str) -> str:
    """The registered name of a version: `autoattack`, `autoattack-v1`."""
    return "autoattack" if version == "standard" else f"autoattack-{version}"
