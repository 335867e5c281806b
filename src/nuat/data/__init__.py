"""Data sets by name: `load("digits")` -> Splits(train, val, test, classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from nuat.config.parsing import split
from nuat.config.registry import Registry
from nuat.data.adapters import images_of, splits_of
from nuat.data.augment import Augment
from nuat.data.base import Source
from nuat.data.cifar10 import cifar10
from nuat.data.cifar100 import cifar100
from nuat.data.digits import digits
from nuat.data.files import ImageFiles
from nuat.data.folder import folder
from nuat.data.imagenet100 import imagenet100
from nuat.data.mnist import mnist
from nuat.data.npz import npz
from nuat.data.own import factory
from nuat.data.paths import look_in
from nuat.data.sampling import class_balanced
from nuat.data.splits import Images, Splits
from nuat.errors import InputError, misread

datasets: Registry[Callable[..., Splits]] = Registry("data set")
datasets.register("digits", digits)
datasets.register("mnist", mnist)
datasets.register("cifar10", cifar10)
datasets.register("cifar100", cifar100)
datasets.register("imagenet100", imagenet100)
datasets.register("folder", folder)
datasets.register("npz", npz)

AT_A_PATH = ("folder", "npz")
"""Data sets whose name is followed by a place: folder:PATH."""


def load(text: str) -> Splits:
    """The data set that `text` names.

    A name with settings, such as `cifar10(train=6000)`; `folder:PATH` or `npz:PATH`, with settings
    too; or `module:factory` of your own, which returns what `splits_of` takes. Raises InputError
    for an unknown name or setting, and for data that cannot be used.
    """
    name, settings = split(text)
    kind, colon, place = name.partition(":")
    if kind in AT_A_PATH and not place:
        raise InputError(f"{kind} needs a place: {kind}:PATH")
    if not colon:
        make, arguments = datasets[name], ()
    elif kind in AT_A_PATH:
        make, arguments = datasets[kind], (place,)
    else:
        return replace(_own(name, settings), name=text)
    try:
        return replace(make(*arguments, **settings), name=text)
    except TypeError as error:
        why = misread(error, kind, make)
        raise InputError(f"cannot read the data {text!r}: {why}") from None


def _own(name: str, settings: dict[str, Any]) -> Splits:
    make = factory(name)
    try:
        signature(make).bind(**settings)
    except TypeError as error:
        raise InputError(f"cannot read the data {name!r}: {error}") from None
    return splits_of(make(**settings), name)


def known(text: str) -> bool:
    """Whether `text` names a data set that `load` could read."""
    name, _ = split(text)
    return name in datasets or ":" in name


def short(text: str) -> str:
    """A data set's name as part of the name of a file: `folder:~/my/photos(size=64)` -> photos."""
    name, _ = split(text)
    kind, colon, place = name.partition(":")
    return Path(place).stem if colon and kind in AT_A_PATH else name.replace(":", "-")


def with_bad_images(text: str, answer: str | None) -> str:
    """The same data set with an answer to bad images: "error" or "skip"; None changes nothing."""
    if answer is None:
        return text
    name, settings = split(text)
    if name != "imagenet100" and not name.startswith("folder:"):
        raise InputError(f"--bad-images is for files of images (folder:PATH), not for {name}")
    told: dict[str, Any] = settings | {"bad_images": answer}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in told.items())})"


__all__ = [
    "Augment",
    "ImageFiles",
    "Images",
    "Source",
    "Splits",
    "class_balanced",
    "datasets",
    "images_of",
    "known",
    "load",
    "look_in",
    "short",
    "splits_of",
    "with_bad_images",
]
