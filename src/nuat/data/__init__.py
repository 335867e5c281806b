"""Data sets by name: `load("digits")` -> Splits(train, val, test, classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from nuat.config.parsing import parse_call
from nuat.config.registry import Registry
from nuat.data.adapters import as_dataset, as_splits
from nuat.data.augment import Augment
from nuat.data.base import ImageDataset
from nuat.data.cifar10 import cifar10
from nuat.data.cifar100 import cifar100
from nuat.data.digits import digits
from nuat.data.files import ImageFiles
from nuat.data.folder import folder
from nuat.data.imagenet100 import imagenet100
from nuat.data.mnist import mnist
from nuat.data.npz import npz
from nuat.data.own import factory
from nuat.data.paths import set_data_dir
from nuat.data.sampling import class_balanced
from nuat.data.splits import InMemoryDataset, Splits
from nuat.errors import InputError, explain_type_error

dataset_registry: Registry[Callable[..., Splits]] = Registry("data set")
dataset_registry.add("digits", digits)
dataset_registry.add("mnist", mnist)
dataset_registry.add("cifar10", cifar10)
dataset_registry.add("cifar100", cifar100)
dataset_registry.add("imagenet100", imagenet100)
dataset_registry.add("folder", folder)
dataset_registry.add("npz", npz)


def list_datasets() -> list[str]:
    """The names of all data sets, in the order of registration."""
    return list(dataset_registry)


def register_dataset(name: str) -> Callable[[Callable[..., Splits]], Callable[..., Splits]]:
    """Register what is decorated as a data set of this name: `@nuat.register_dataset("mine")`.

    Raises:
        InputError: the name is taken.
    """
    return dataset_registry.register(name)


AT_A_PATH = ("folder", "npz")
"""Data sets whose name is followed by a place: folder:PATH."""


def load_dataset(text: str) -> Splits:
    """The data set that `text` names.

    A name with settings, such as `cifar10(train=6000)`; `folder:PATH` or `npz:PATH`, with settings
    too; or `module:factory` of your own, which returns what `as_splits` takes. Raises InputError
    for an unknown name or setting, and for data that cannot be used.
    """
    name, settings = parse_call(text)
    kind, colon, place = name.partition(":")
    if kind in AT_A_PATH and not place:
        raise InputError(f"{kind} needs a place: {kind}:PATH")
    if not colon:
        make, arguments = dataset_registry[name], ()
    elif kind in AT_A_PATH:
        make, arguments = dataset_registry[kind], (place,)
    else:
        return replace(_own(name, settings), name=text)
    try:
        return replace(make(*arguments, **settings), name=text)
    except TypeError as error:
        why = explain_type_error(error, kind, make)
        raise InputError(f"cannot read the data {text!r}: {why}") from None


def _own(name: str, settings: dict[str, Any]) -> Splits:
    make = factory(name)
    try:
        signature(make).bind(**settings)
    except TypeError as error:
        raise InputError(f"cannot read the data {name!r}: {error}") from None
    return as_splits(make(**settings), name)


def is_dataset_name(text: str) -> bool:
    """Whether `text` names a data set that `load` could read."""
    name, _ = parse_call(text)
    return name in dataset_registry or ":" in name


def dataset_slug(text: str) -> str:
    """A data set's name as part of the name of a file: `folder:~/my/photos(size=64)` -> photos."""
    name, _ = parse_call(text)
    kind, colon, place = name.partition(":")
    return Path(place).stem if colon and kind in AT_A_PATH else name.replace(":", "-")


def with_bad_images(text: str, answer: str | None) -> str:
    """The same data set with an answer to bad images: "error" or "skip"; None changes nothing."""
    if answer is None:
        return text
    name, settings = parse_call(text)
    if name != "imagenet100" and not name.startswith("folder:"):
        raise InputError(f"--bad-images is for files of images (folder:PATH), not for {name}")
    told: dict[str, Any] = settings | {"bad_images": answer}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in told.items())})"


__all__ = [
    "Augment",
    "ImageFiles",
    "InMemoryDataset",
    "ImageDataset",
    "Splits",
    "class_balanced",
    "dataset_registry",
    "list_datasets",
    "register_dataset",
    "as_dataset",
    "is_dataset_name",
    "load_dataset",
    "set_data_dir",
    "dataset_slug",
    "as_splits",
    "with_bad_images",
]
