"""Data sets by name: `load("digits")` -> Splits(train, val, test, classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nuat.data.cifar10 import cifar10
from nuat.data.digits import digits
from nuat.data.mnist import mnist
from nuat.data.splits import Augment, Images, Splits, class_balanced
from nuat.errors import InputError
from nuat.notation import split
from nuat.registry import Registry

datasets: Registry[Callable[..., Splits]] = Registry("data set")
datasets.register("digits", digits)
datasets.register("mnist", mnist)
datasets.register("cifar10", cifar10)


def load(text: str) -> Splits:
    """The data set that `text` names. Raises InputError for an unknown name or setting."""
    name, settings = split(text)
    reader = datasets[name]
    try:
        return replace(reader(**settings), name=text)
    except TypeError as error:
        raise InputError(f"cannot read the data {text!r}: {error}") from None


__all__ = ["Augment", "Images", "Splits", "class_balanced", "datasets", "load"]
