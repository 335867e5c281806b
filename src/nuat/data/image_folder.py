"""Class folders: which files they hold, of which class, and which of them cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nuat.data.image_io import ENDINGS, fault
from nuat.data.loader import default_workers
from nuat.errors import InputError


@dataclass(frozen=True)
class Tree:
    """The images under CLASS/ folders in `top`.

    Attributes:
        top: the folder.
        classes: the names of the classes, by label.
        files: (file, label), class by class, in the order of their names.
        notes: what a user should know, a line each.
    """

    top: Path
    classes: tuple[str, ...]
    files: tuple[tuple[Path, int], ...]
    notes: tuple[str, ...] = ()

    def without(self, wrong: Iterable[Path]) -> Tree:
        """The same without some files. Raises InputError if nothing is left of a class."""
        wrong = set(wrong)
        kept = tuple((file, label) for file, label in self.files if file not in wrong)
        lost = {label for _, label in self.files} - {label for _, label in kept}
        if lost:
            raise InputError(f"{self.top}: no image of {self.classes[min(lost)]!r} can be read")
        return Tree(self.top, self.classes, kept, self.notes)


def class_names(top: Path) -> tuple[str, ...]:
    """The class folders in `top`, by name. Raises InputError unless there are two or more."""
    names = tuple(sorted(each.name for each in _folders(top)))
    if not names:
        loose = any(_is_image(each) for each in top.iterdir())
        why = " (it holds images, but in no class folders)" if loose else ""
        raise InputError(f"{top} holds no class folders{why}: lay it out as {top}/CLASS/*.jpg")
    if len(names) == 1:
        raise InputError(
            f"{top} holds one class only, {names[0]!r}: a classifier needs two or more"
        )
    return names


def walk(top: Path, classes: tuple[str, ...], strict: bool = True) -> Tree:
    """The images of these classes in `top`. With `strict` a class it does not know is refused."""
    there = set(class_names(top))
    strange = sorted(there - set(classes))
    if strict and strange:
        raise InputError(
            f"{top} has the class {strange[0]!r}, which the training images do not have; "
            f"theirs are {some(classes, 5)}"
        )
    files: list[tuple[Path, int]] = []
    others: list[str] = []
    for label, name in enumerate(classes):
        if name in there:
            images, rest = _in_class(top / name)
            files += [(file, label) for file in images]
            others += [file.name for file in rest]
    notes = []
    if others:
        notes.append(f"{top}: {len(others)} files are not images: {some(others)}")
    if missing := [name for name in classes if name not in there]:
        notes.append(f"{top} has no images of {some(missing)}")
    return Tree(top, classes, tuple(files), tuple(notes))


def _in_class(place: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(file for file in place.rglob("*") if file.is_file() and _visible(file))
    images = [file for file in files if _is_image(file)]
    if not images:
        raise InputError(
            f"the class folder {place} holds no images ({' '.join(sorted(ENDINGS))}): "
            "add some, or delete it"
        )
    return images, [file for file in files if not _is_image(file)]


def unreadable(files: Sequence[Path], thorough: bool) -> dict[Path, str]:
    """The files that cannot be read, and why; see `nuat.data.image_io.fault`."""
    with ThreadPoolExecutor(max(1, default_workers())) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is then found to be wrong
        faults = zip(files, pool.map(lambda file: fault(file, thorough), files), strict=True)
        return {file: why for file, why in faults if why}


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _folders(top: Path) -> list[Path]:
    return [each for each in top.iterdir() if each.is_dir() and _visible(each)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")
