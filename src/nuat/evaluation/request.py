"""What an evaluation was asked for: which attacks, which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nuat.attacks import Attack, Ensemble, parse_attack
from nuat.data import ImageDataset, class_balanced
from nuat.errors import InputError
from nuat.evaluation.per_image import Parts
from nuat.rng import derive_seed
from nuat.threat_models import Ball

Attacks = str | Sequence[str] | Mapping[str, Attack | Ensemble]


def parse_attacks(attacks: Attacks, ball: Ball) -> dict[str, Attack | Ensemble]:
    """The attacks by name. Raises InputError for none, or one within another ball."""
    if isinstance(attacks, str):
        attacks = [attacks]
    if not isinstance(attacks, Mapping):
        attacks = {name: parse_attack(name, ball) for name in attacks}
    if not attacks:
        raise InputError("no attack was given, such as 'pgd-20'")
    for name, each in attacks.items():
        if each.ball != ball:
            raise InputError(f"{name} attacks within {each.ball}, not within {ball} as asked")
    return dict(attacks)


def select_indices(
    images: ImageDataset, samples: int | None, indices: Sequence[int] | None, seed: int
) -> list[int]:
    """The places of the images to attack: all, some balanced over the classes, or those named."""
    if indices is None:
        if samples is None:
            return list(range(len(images)))
        return class_balanced(images.y, samples, derive_seed(seed, "samples")).tolist()
    if samples is not None:
        raise InputError("both samples and indices were given: which images are meant?")
    ids = [int(place) for place in indices]
    outside = [place for place in ids if not 0 <= place < len(images)]
    if outside or not ids or len(set(ids)) != len(ids):
        wrong = "one is there twice" if ids else "there are none"
        wrong = f"{outside[0]} is outside" if outside else wrong
        raise InputError(f"indices must be different places from 0 to {len(images) - 1}; {wrong}")
    return ids


def applicable_attacks(
    attacks: Mapping[str, Attack | Ensemble], classes: int
) -> tuple[dict[str, Parts], list[str]]:
    """For each attack its parts that are defined for so many classes; what is left out, in words.

    Raises InputError if nothing of an attack is defined.
    """
    found: dict[str, Parts] = {}
    notes: list[str] = []
    for name, each in attacks.items():
        if isinstance(each, Ensemble):
            found[name], left_out = each.fitting(classes)
            notes += left_out
        else:
            each.check_classes(classes)
            found[name] = {name: each}
    return found, notes


def count_runs(parts: Mapping[str, Parts], classes: int) -> int:
    """Runs of all attacks on one image."""
    return sum(each.runs(classes) for part in parts.values() for each in part.values())


def max_targets(parts: Mapping[str, Parts]) -> int:
    """How many other classes of an image are aimed at, at the most."""
    return max(each.targets for part in parts.values() for each in part.values())
