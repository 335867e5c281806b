"""Parts of a data set: which images, by their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nuat.errors import InputError


def first_of_each_class(y: Tensor, count: int) -> Tensor:
    """The places of the first `count` images of each class, in order."""
    places = [(y == label).nonzero()[:count, 0] for label in y.unique()]
    return torch.cat(places).sort().values


def class_balanced(y: Tensor, count: int, seed: int) -> Tensor:
    """`count` places, as evenly over the classes as they allow, drawn by the seed; in order."""
    if not 0 < count <= len(y):
        raise InputError(
            f"{count} samples were asked for, but there are {len(y)} images: ask for 1 to {len(y)}"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    labels = y.cpu()[shuffled]
    turn = torch.empty_like(labels)
    for label in labels.unique():
        mine = labels == label
        turn[mine] = torch.arange(int(mine.sum()))
    return shuffled[turn.argsort(stable=True)][:count].sort().values


def stratified_holdout(y: Tensor, share: float, seed: int, classes: Sequence[str] = ()) -> Tensor:
    """The places of that share of each class, one image at least, drawn by the seed; in order.

    `classes` are their names, for the message. Raises InputError if a class has a single image,
    which cannot be on both sides.
    """
    if not 0 < share < 1:
        raise InputError(f"the share held out is {share}, but must lie between 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for label in y.unique():
        mine = (y == label).nonzero()[:, 0]
        if len(mine) < 2:
            name = f" ({classes[int(label)]})" if classes else ""
            raise InputError(f"class {int(label)}{name} has 1 image left: too few to hold one out")
        order = torch.randperm(len(mine), generator=generator)
        drawn.append(mine[order[: max(1, round(share * len(mine)))]])
    return torch.cat(drawn).sort().values


def without(y: Tensor, places: Tensor) -> Tensor:
    """All other places, in order."""
    kept = torch.ones(len(y), dtype=torch.bool)
    kept[places] = False
    return kept.nonzero()[:, 0]
