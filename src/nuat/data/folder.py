"""A folder of images: train/CLASS/*.jpg, with val/ and test/ beside it, or CLASS/*.jpg alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from nuat.data.files import ImageFiles
from nuat.data.image_folder import Tree, class_names, some, unreadable, walk
from nuat.data.splits import Splits, fill_missing_splits
from nuat.errors import InputError, unknown_name

FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""How the folders of the splits may be called."""
BAD_IMAGES = ("error", "skip")


def folder(
    path: str,
    size: int = 224,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    bad_images: str = "error",
    workers: int | None = None,
) -> Splits:
    """folder:PATH, images in train/CLASS/, and val/ and test/ beside it if there are any.

    PATH/CLASS/ will do too. Images become `size` x `size` RGB. Without a test folder val is the
    test split; what is then still missing is held out of train: `val` and `test` are the shares,
    drawn by `seed`. `bad_images` is "error", or "skip" to leave out what cannot be read. `workers`
    processes read ahead; by default one for each processor, or $NUAT_WORKERS.
    """
    top = Path(path).expanduser()
    reader = FolderReader(size, val, test, seed, bad_images, workers)
    if not top.is_dir():
        what = "is a file, not a folder" if top.exists() else "does not exist"
        fix = "lay it out as train/CLASS/*.jpg"
        if re.search(r"\(\s*\w+\s*=[^)]*$", path):
            fix = f"is a bracket missing? folder:{path})"
        raise InputError(f"folder:{path}: {top.absolute()} {what}; {fix}")
    return reader(top, f"folder:{path}")


@dataclass(frozen=True)
class FolderReader:
    """How a folder is read; see `folder`."""

    size: int = 224
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    bad_images: str = "error"
    workers: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InputError(f"size is {self.size!r}, but must be a whole number of pixels from 1")
        if self.bad_images not in BAD_IMAGES:
            raise unknown_name("way with bad images", str(self.bad_images), BAD_IMAGES)
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers >= 0):
            raise InputError(f"workers is {self.workers!r}, but must be a whole number from 0 up")

    def __call__(self, top: Path, name: str, only: tuple[str, ...] | None = None) -> Splits:
        """The splits in a folder, of all its classes, or `only` of some."""
        places = _places(top)
        classes = only or class_names(places["train"])
        trees = {split: walk(place, classes, only is None) for split, place in places.items()}
        trees, notes = self._readable(trees, top)
        parts = {split: self._images(tree) for split, tree in trees.items()}
        done, made = fill_missing_splits(parts, name, self.val, self.test, self.seed, classes)
        said = [note for tree in trees.values() for note in tree.notes]
        return Splits(**done, classes=classes, name=name, notes=(*said, *notes, *made))

    def _images(self, tree: Tree) -> ImageFiles:
        labels = torch.tensor([label for _, label in tree.files], dtype=torch.int64)
        return ImageFiles(tuple(file for file, _ in tree.files), labels, self.size, self.workers)

    def _readable(self, trees: dict[str, Tree], top: Path) -> tuple[dict[str, Tree], list[str]]:
        files = [file for tree in trees.values() for file, _ in tree.files]
        wrong = unreadable(files, thorough=self.bad_images == "skip")
        if not wrong:
            return trees, []
        told = some([f"{file.relative_to(top)} ({why})" for file, why in wrong.items()])
        count = f"{len(wrong)} of {len(files)} images in {top}"
        if self.bad_images == "error":
            raise InputError(
                f"{count} cannot be read: {told}. Mend or delete them, or leave them out with "
                "--bad-images skip"
            )
        kept = {split: tree.without(wrong) for split, tree in trees.items()}
        return kept, [f"{count} cannot be read and are left out: {told}"]


def _places(top: Path) -> dict[str, Path]:
    found = {}
    for split, names in FOLDERS.items():
        there = [top / name for name in names if (top / name).is_dir()]
        if len(there) > 1:
            raise InputError(f"{top} holds {there[0].name} and {there[1].name}: which is {split}?")
        if there:
            found[split] = there[0]
    if found and "train" not in found:
        raise InputError(f"{top} holds {', '.join(found)}, but no train folder")
    return found or {"train": top}
