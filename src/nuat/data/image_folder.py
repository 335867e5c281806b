"""Class folders: the image files they contain, their labels, and which files are damaged."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nuat.data.image_io import IMAGE_SUFFIXES, find_corruption
from nuat.data.loader import default_workers
from nuat.data.names import is_hidden, label_finder, split_of
from nuat.errors import InputError


@dataclass(frozen=True)
class LabeledFiles:
    """The image files in the class folders of `top`, sorted by label and path; labels are [N].

    Each of the `notes` is a line for the user.
    """

    top: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Tensor
    notes: tuple[str, ...] = ()

    def exclude(self, excluded: Collection[Path]) -> LabeledFiles:
        """Return the files that are not in `excluded`.

        Raises:
            InputError: no file of a class is left.
        """
        kept = [i for i, file in enumerate(self.files) if file not in excluded]
        labels = self.labels[kept]
        if lost := {*self.labels.tolist()} - {*labels.tolist()}:
            raise InputError(f"{self.top}: no image of {self.classes[min(lost)]!r} can be read")
        return replace(self, files=tuple(self.files[i] for i in kept), labels=labels)


def list_classes(top: Path) -> tuple[str, ...]:
    """Return the names of the class folders in `top`, sorted.

    Raises:
        InputError: there are fewer than two.
    """
    names = tuple(folder.name for folder in list_folders(top))
    if not names:
        has_images = any(_is_image(path) for path in top.iterdir())
        detail = " (it holds images, but not in class folders)" if has_images else ""
        raise InputError(f"{top} holds no class folders{detail}: lay it out as {top}/CLASS/*.jpg")
    if len(names) == 1:
        raise InputError(
            f"{top} holds one class only, {names[0]!r}: a classifier needs two or more"
        )
    for name in names:
        splits = [folder.name for folder in list_folders(top / name) if split_of(folder.name)]
        if splits:
            raise InputError(
                f"the class folder {top / name} holds {', '.join(splits)}, which look like splits: "
                "name the folder of the splits, or lay it out as train/CLASS/*.jpg"
            )
    return names


def list_folders(top: Path) -> list[Path]:
    """Return the folders in `top`, sorted, without hidden ones."""
    return sorted(path for path in top.iterdir() if path.is_dir() and not is_hidden(path.name))


def scan(top: Path, classes: tuple[str, ...], strict: bool = True) -> LabeledFiles:
    """Find the image files of `classes` in the class folders of `top`.

    Class folders that are not in `classes` are refused with `strict`, and otherwise ignored.

    Raises:
        InputError: there is an unknown class, or a class folder without images.
    """
    find_label = label_finder(classes)
    present: dict[int, str] = {}
    for name in list_classes(top):
        label = find_label(name)
        if label is not None and label not in present:
            present[label] = name
        elif strict:
            raise InputError(
                f"{top} has the class {name!r}, which the training images do not have; "
                f"their classes are {summarize(classes, 5)}"
            )
    files: list[Path] = []
    labels: list[int] = []
    other_files: list[str] = []
    for label, name in sorted(present.items()):
        images, others = _list_files(top / name)
        files += images
        labels += [label] * len(images)
        other_files += [file.name for file in others]
    notes = []
    if other_files:
        notes.append(f"{top}: {len(other_files)} files are not images: {summarize(other_files)}")
    if missing := [name for label, name in enumerate(classes) if label not in present]:
        notes.append(f"{top} has no images of {summarize(missing)}")
    y = torch.tensor(labels, dtype=torch.int64)
    return LabeledFiles(top, classes, tuple(files), y, tuple(notes))


def _list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files and the other files in a class folder and its subfolders."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(map(is_hidden, file.relative_to(folder).parts))
    )
    images = [file for file in files if _is_image(file)]
    if not images:
        raise InputError(
            f"the class folder {folder} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}): "
            "add some, or delete it"
        )
    return images, [file for file in files if not _is_image(file)]


def find_unreadable(files: Sequence[Path], decode_all: bool) -> dict[Path, str]:
    """Return the files that cannot be read, and why; see `nuat.data.image_io.find_corruption`."""
    with ThreadPoolExecutor(max(1, default_workers())) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow also warns about the files that are found here
        reasons = pool.map(lambda file: find_corruption(file, decode_all), files)
        return {file: reason for file, reason in zip(files, reasons, strict=True) if reason}


def summarize(names: Sequence[str], max_names: int = 3) -> str:
    """Return `a, b, c and 4 more`."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
