"""The registry of data sets, and the texts that name one: `cifar10(train=6000)`, `folder:PATH`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from nuat.config.imports import import_object
from nuat.config.parsing import parse_call
from nuat.config.registry import Registry
from nuat.data.adapters import as_splits
from nuat.data.cifar import load_cifar10, load_cifar100
from nuat.data.digits import load_digits
from nuat.data.folder import load_folder
from nuat.data.imagenet100 import load_imagenet100
from nuat.data.mnist import load_mnist
from nuat.data.npz import load_npz
from nuat.data.splits import Splits
from nuat.data.svhn import load_svhn
from nuat.data.tiny_imagenet import load_tiny_imagenet
from nuat.errors import InputError, explain_type_error

dataset_registry: Registry[Callable[..., Splits]] = Registry("data set")
dataset_registry.add("digits", load_digits)
dataset_registry.add("mnist", load_mnist)
dataset_registry.add("cifar10", load_cifar10)
dataset_registry.add("cifar100", load_cifar100)
dataset_registry.add("svhn", load_svhn)
dataset_registry.add("tiny-imagenet", load_tiny_imagenet)
dataset_registry.add("imagenet100", load_imagenet100)
dataset_registry.add("folder", load_folder)
dataset_registry.add("npz", load_npz)

PATH_KINDS = ("folder", "npz")
"""Kinds of data set that are named together with a path, such as folder:PATH."""


def list_datasets() -> list[str]:
    """Return the names of all data sets, in the order of registration.

    >>> "digits" in nuat.list_datasets()
    True
    """
    return list(dataset_registry)


def register_dataset(name: str) -> Callable[[Callable[..., Splits]], Callable[..., Splits]]:
    """Register the decorated function as a data set: `@nuat.register_dataset("flowers")`.

    Raises:
        InputError: the name is taken.

    >>> @nuat.register_dataset("random")
    ... def random_images():
    ...     x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 2
    ...     part = nuat.InMemoryDataset(x, y)
    ...     return nuat.Splits(part, part, part, ("even", "odd"), "random")
    >>> len(nuat.load_dataset("random").test)
    6
    """
    return dataset_registry.register(name)


trusted_datasets: set[str] = set()
"""The names of data sets that the user has asked for in this process."""


def check_recorded_dataset(text: str, source: object) -> None:
    """Raise InputError if a file names data that nuat must not open because a file says so.

    A registered name such as `cifar10(train=6000)` may be loaded. A path (`folder:PATH`) or a
    function (`module:function`) may not, unless the user has named the same data in this process.

    Args:
        text: the name.
        source: the file or folder that names it, for the error.
    """
    if is_path_or_function(text) and text not in trusted_datasets:
        raise InputError(
            f"{source} names its data {text!r}; nuat opens no path and calls no function because "
            f"a file says so. If you trust it, add --data {text!r}"
        )


def is_path_or_function(text: str) -> bool:
    """Return whether a data set is named `folder:PATH`, `npz:PATH` or `module:function`."""
    name, _ = parse_call(text)
    return ":" in name and name not in dataset_registry


def trust_dataset(text: str) -> None:
    """Note that the user has asked for this data set: files that name it may be followed."""
    trusted_datasets.add(text)


def load_dataset(text: str) -> Splits:
    """Load the data set that `text` names.

    Args:
        text: a registered name with optional settings, such as `cifar10(train=6000)`;
            `folder:PATH` or `npz:PATH`, with optional settings too; or `module:function`, where
            the function returns an argument of `as_splits`.

    Raises:
        InputError: the name or a setting is unknown, or the data cannot be used.

    >>> digits = nuat.load_dataset("digits")
    >>> len(digits.train), len(digits.val), len(digits.test), digits.classes[:3]
    (1197, 200, 400, ('0', '1', '2'))
    """
    name, settings = parse_call(text)
    trust_dataset(text)
    kind, colon, path = name.partition(":")
    if kind in PATH_KINDS and not path:
        raise InputError(f"{kind} needs a path: {kind}:PATH")
    if colon and kind not in PATH_KINDS:
        return replace(_call_user_function(name, settings), name=text)
    load = dataset_registry[kind]
    arguments = [path] if colon else []
    try:
        return replace(load(*arguments, **settings), name=text)
    except TypeError as error:
        reason = explain_type_error(error, kind, load)
        raise InputError(f"cannot read the data {text!r}: {reason}") from None


def _call_user_function(name: str, settings: dict[str, Any]) -> Splits:
    try:
        function = import_object(name)
    except ImportError as error:
        raise InputError(f"{name} cannot be imported: {error}") from None
    if not callable(function):
        raise InputError(
            f"{name} is a {type(function).__name__}, not a function that returns a data set"
        )
    try:
        # Only the call itself is checked: a TypeError inside the function is the user's to see.
        signature(function).bind(**settings)
    except TypeError as error:
        raise InputError(f"cannot read the data {name!r}: {error}") from None
    return as_splits(function(**settings), name)


def is_dataset_name(text: str) -> bool:
    """Return whether `text` has the form of a name that `load_dataset` could load."""
    name, _ = parse_call(text)
    return name in dataset_registry or ":" in name


def dataset_slug(text: str) -> str:
    """Return a short name for use in file names: `folder:~/my/photos(size=64)` -> `photos`."""
    name, _ = parse_call(text)
    kind, colon, path = name.partition(":")
    return Path(path).stem if colon and kind in PATH_KINDS else name.replace(":", "-")


def with_bad_images(text: str, action: str | None) -> str:
    """Return the name of the same data set with the setting `bad_images`; None changes nothing.

    Raises:
        InputError: the data set does not consist of image files.
    """
    if action is None:
        return text
    name, settings = parse_call(text)
    if name != "imagenet100" and not name.startswith("folder:"):
        raise InputError(f"--bad-images is for image files (folder:PATH), not for {name}")
    settings = settings | {"bad_images": action}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
