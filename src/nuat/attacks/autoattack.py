"""Several attacks one after another, each on what the others left standing; AutoAttack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks.apgd import APGD, APGDDLR, APGDT
from nuat.attacks.base import NOISE, Attack
from nuat.attacks.criteria import is_robust, logits
from nuat.attacks.fab import FAB, FABT
from nuat.attacks.square import Square
from nuat.errors import InputError, unknown_name
from nuat.rng import Noise
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class Ensemble:
    """Attacks by name, in order; an image that has fallen to one is spared the next.

    Attributes:
        ball: the threat model, that of every part.
        parts: pairs of a name and an attack.
        name: what it is called.
    """

    ball: Ball = Linf(8 / 255)
    parts: tuple[tuple[str, Attack], ...] = ()
    name: str = "ensemble"

    def __post_init__(self) -> None:
        for name, part in self.parts:
            if part.ball != self.ball:
                raise InputError(f"{name} attacks within {part.ball}, not within {self.ball}")
            if part.joint:
                raise InputError(
                    f"{name} attacks batches jointly and can be no part of {self.name}"
                )
            if part.snapshots:
                raise InputError(
                    f"{name} has snapshots, which are results of their own: no part of {self.name}"
                )
        if len(names := [name for name, _ in self.parts]) != len(set(names)):
            raise InputError(f"{self.name} has a part twice: {', '.join(names)}")
        if not self.parts:
            raise InputError(f"{self.name} has no parts")

    def fitting(self, classes: int) -> tuple[dict[str, Attack], list[str]]:
        """The parts that are defined for so many classes; what differs from the full set, in words.

        Raises InputError if none is.
        """
        fit = {name: part for name, part in self.parts if classes >= part.least_classes}
        left_out = [name for name, _ in self.parts if name not in fit]
        if not fit:
            raise InputError(f"no part of {self.name} is defined for {classes} classes")
        notes = []
        if left_out:
            notes.append(
                f"{self.name} without {', '.join(left_out)}: undefined for {classes} classes"
            )
        fewer = [name for name, part in fit.items() if part.targets > classes - 1]
        if fewer:
            notes.append(f"{self.name}: {classes - 1} targets in {', '.join(fewer)}, all there are")
        return fit, notes

    def __call__(self, f: nn.Module, x: Tensor, y: Tensor, noise: Noise = NOISE) -> Tensor:
        """Attack images `x` in [0, 1], [B, C, H, W], with labels `y` [B].

        Each image keeps the first point that counts against it, or else is given back as it was.
        """
        z = logits(f, x)
        parts, _ = self.fitting(z.shape[1])
        x_adv, standing = x.clone(), (z.argmax(1) == y).nonzero()[:, 0]
        for name, part in parts.items():
            if not len(standing):
                break
            some = x[standing], y[standing]
            found = part(f, *some, noise.fork(name).take(standing))
            stood = is_robust(f, *some, found, self.ball)
            x_adv[standing[~stood]] = found[~stood]
            standing = standing[stood]
        return x_adv


Parts = Callable[[Ball], dict[str, Attack]]

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
        "apgd-ce": lambda ball: APGD(ball, draws=20),
        "apgd-dlr": lambda ball: APGDDLR(ball, draws=20),
    },
}


def autoattack(ball: Ball, version: str = "standard") -> Ensemble:
    """AutoAttack (arXiv:2003.01690): attacks without settings, each on the images left standing.

    - `standard`: APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square of 5,000 queries.
    - `v1`: the first version, "AA (v1)" in tables of 2020 and 2021: APGD-CE and APGD-DLR of 5
      restarts, FAB of 5 restarts over all classes, Square.
    - `plus`: v1 and then the targeted attacks of standard.
    - `rand`: for randomized networks: APGD-CE and APGD-DLR, gradients averaged over 20 draws.

    The parts for fewer classes: `Ensemble.fitting`. Another set is an `Ensemble` of your own.
    """
    if version not in VERSIONS:
        raise unknown_name("version of autoattack", version, VERSIONS)
    parts = tuple((name, make(ball)) for name, make in VERSIONS[version].items())
    return Ensemble(ball, parts, named(version))


def named(version: str) -> str:
    """What a version is called: `autoattack`, `autoattack-v1`."""
    return "autoattack" if version == "standard" else f"autoattack-{version}"


def versioned(version: str) -> Callable[[Ball], Ensemble]:
    """That version as a function of the ball alone."""

    def make(ball: Ball) -> Ensemble:
        return autoattack(ball, version)

    make.__doc__ = f"AutoAttack, version {version}: {', '.join(VERSIONS[version])}."
    return make
