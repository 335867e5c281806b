"""Selections of images by their labels; every function returns sorted indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nuat.errors import InputError


def first_of_each_class(y: Tensor, count: int) -> Tensor:
    """Return the indices of the first `count` images of each class in `y` [N]."""
    indices = [(y == label).nonzero()[:count, 0] for label in y.unique()]
    return torch.cat(indices).sort().values


def class_balanced(y: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` random indices, spread over the classes in `y` [N] as evenly as possible.

    Raises:
        InputError: `count` is not between 1 and N.
    """
    if not 0 < count <= len(y):
        raise InputError(
            f"{count} samples were requested, but there are {len(y)} images: request 1 to {len(y)}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    labels = y.cpu()[order]
    # An image's rank counts the images of its class before it; low ranks are taken first.
    rank = torch.empty_like(labels)
    for label in labels.unique():
        is_label = labels == label
        rank[is_label] = torch.arange(int(is_label.sum()))
    return order[rank.argsort(stable=True)][:count].sort().values


def stratified_holdout(
    y: Tensor, fraction: float, seed: int, class_names: Sequence[str] = ()
) -> Tensor:
    """Return random indices of a fraction of each class in `y` [N], at least one image per class.

    The fraction lies in (0, 1); `class_names` are those of the error message.

    Raises:
        InputError: the fraction is out of range, or a class has only one image, which cannot be in
            both parts.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction is {fraction}, but must lie between 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    selected = []
    for label in y.unique():
        indices = (y == label).nonzero()[:, 0]
        if len(indices) < 2:
            name = f" ({class_names[int(label)]})" if class_names else ""
            raise InputError(
                f"class {int(label)}{name} has only 1 image left, so none can be held out: "
                "add images of this class"
            )
        order = torch.randperm(len(indices), generator=generator)
        selected.append(indices[order[: max(1, round(fraction * len(indices)))]])
    return torch.cat(selected).sort().values


def complement(y: Tensor, indices: Tensor) -> Tensor:
    """Return all indices of `y` [N] that are not in `indices`."""
    is_kept = torch.ones(len(y), dtype=torch.bool)
    is_kept[indices] = False
    return is_kept.nonzero()[:, 0]
