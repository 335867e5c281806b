"""Names of splits, of classes and of hidden folders, in the spellings that people use."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

SPLIT_PATTERNS = {
    "train": r"train(ing)?",
    "val": r"val(id|idation|idate|idating)?|dev|development",
    "test": r"test(ing)?",
}
"""What the name of each split may be, apart from case and separators."""
ADDITIONS = r"(set|data|dataset|split|images|imgs|pics|pictures|photos|folder|dir)?\d*"

HIDDEN_NAMES = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "__macosx",
        "__pycache__",
        "lost+found",
        "system volume information",
    }
)
"""Folders in lower case that operating systems and network drives put among a user's own."""


def split_of(name: str) -> str | None:
    """Return the split that `name` means: "train", "val", "test", or None.

    Case and separators do not matter: `Train`, `TRAINING`, `train_set` and `train2017` mean train.
    """
    letters = re.sub(r"[\W_]+", "", name).lower()
    for split, pattern in SPLIT_PATTERNS.items():
        if re.fullmatch(f"({pattern}){ADDITIONS}", letters):
            return split
    return None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or belongs to the system."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def word_of_split(name: str) -> str | None:
    """Return the split that a word of `name` means, as `seg_train` and `train-2`, or None."""
    words = map(split_of, re.split(r"[\W_]+", name))
    return next((split for split in words if split), None)


def is_numbered(classes: Sequence[str]) -> bool:
    """Return whether the classes are named "0", "1", ..., as classes without names are."""
    return list(classes) == [str(label) for label in range(len(classes))]


def label_finder(classes: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function from the name of a class to its label, or to None for an unknown name.

    Case, spaces, hyphens and underscores do not matter, unless two classes differ in nothing else.
    """
    exact = {name: label for label, name in enumerate(classes)}
    loose = {_loosely(name): label for label, name in enumerate(classes)}
    if len(loose) < len(classes):
        loose = {}
    return lambda name: exact.get(name, loose.get(_loosely(name)))


def match_labels(given: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return for each class in `given` its label in `wanted`; None unless all are there, once."""
    labels = [label for label in map(label_finder(wanted), given) if label is not None]
    return labels if len(labels) == len(set(labels)) == len(given) else None


def _loosely(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
