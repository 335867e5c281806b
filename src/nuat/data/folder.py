"""Folders of images: train/CLASS/*.jpg with optional val/ and test/, or CLASS/*.jpg alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from nuat.data.image_files import ImageFileDataset
from nuat.data.image_folder import (
    LabeledFiles,
    find_unreadable,
    list_classes,
    list_folders,
    scan,
    summarize,
)
from nuat.data.names import split_of, word_of_split
from nuat.data.splits import SPLIT_NAMES, Splits, fill_missing_splits
from nuat.errors import InputError, check_positive_int, unknown_name

BAD_IMAGE_ACTIONS = ("error", "skip")


def load_folder(
    path: str,
    size: int = 224,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    bad_images: str = "error",
    workers: int | None = None,
) -> Splits:
    """folder:PATH, images in train/CLASS/, and optionally in val/CLASS/ and test/CLASS/.

    PATH/CLASS/ without `train` is accepted too. Without a test folder, val is the test split.

    Args:
        path: the folder.
        size: images become RGB, `size` pixels wide and high.
        val: fraction of each class that is held out of train if there is no val split.
        test: fraction of each class that is held out of train if there is no test or val split.
        seed: seed of that draw.
        bad_images: "error" refuses the folder if an image cannot be read, "skip" leaves it out.
        workers: processes that read ahead; None for $NUAT_WORKERS or one per processor.

    Raises:
        InputError: the folder, its layout or an image is invalid.
    """
    top = Path(path).expanduser()
    reader = FolderReader(size, val, test, seed, bad_images, workers)
    if not top.is_dir():
        problem = "is a file, not a folder" if top.exists() else "does not exist"
        fix = "lay it out as train/CLASS/*.jpg"
        if re.search(r"\(\s*\w+\s*=[^)]*$", path):
            fix = f"is a bracket missing? folder:{path})"
        raise InputError(f"folder:{path}: {top.absolute()} {problem}; {fix}")
    return reader.read(top, f"folder:{path}")


@dataclass(frozen=True)
class FolderReader:
    """Reads the splits in a folder of images; `load_folder` describes the settings."""

    size: int = 224
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    bad_images: str = "error"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_positive_int("size", self.size)
        if self.bad_images not in BAD_IMAGE_ACTIONS:
            raise unknown_name("value of bad_images", str(self.bad_images), BAD_IMAGE_ACTIONS)
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers >= 0):
            raise InputError(f"workers is {self.workers!r}, but must be a whole number from 0 up")

    def read(self, top: Path, name: str, classes: tuple[str, ...] | None = None) -> Splits:
        """Return the splits in the folder `top`.

        Args:
            top: the folder.
            name: the name of the data set.
            classes: read these classes only and ignore others; None reads all.

        Raises:
            InputError: the layout or an image is invalid.
        """
        folders, folder_notes = _find_split_folders(top)
        is_strict = classes is None
        classes = classes or list_classes(folders["train"])
        found = {split: scan(folder, classes, is_strict) for split, folder in folders.items()}
        scan_notes = [note for files in found.values() for note in files.notes]
        found, bad_image_notes = self._without_bad_images(found, top)
        filled, split_notes = fill_missing_splits(
            {split: self._dataset(files) for split, files in found.items()},
            name,
            self.val,
            self.test,
            self.seed,
            classes,
        )
        notes = (*folder_notes, *scan_notes, *bad_image_notes, *split_notes)
        return Splits(**filled, classes=classes, name=name, notes=notes)

    def _dataset(self, labeled: LabeledFiles) -> ImageFileDataset:
        labels = torch.tensor([label for _, label in labeled.files], dtype=torch.int64)
        files = tuple(file for file, _ in labeled.files)
        return ImageFileDataset(files, labels, self.size, self.workers)

    def _without_bad_images(
        self, found: dict[str, LabeledFiles], top: Path
    ) -> tuple[dict[str, LabeledFiles], list[str]]:
        files = [file for labeled in found.values() for file, _ in labeled.files]
        unreadable = find_unreadable(files, decode_all=self.bad_images == "skip")
        if not unreadable:
            return found, []
        listing = summarize(
            [f"{file.relative_to(top)} ({why})" for file, why in unreadable.items()]
        )
        count = f"{len(unreadable)} of {len(files)} images in {top}"
        if self.bad_images == "error":
            raise InputError(
                f"{count} cannot be read: {listing}. Repair or delete them, or leave them out with "
                "--bad-images skip"
            )
        kept = {split: labeled.exclude(unreadable) for split, labeled in found.items()}
        return kept, [f"{count} cannot be read and are left out: {listing}"]


def _find_split_folders(top: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split in `top`, and notes on the folders beside them."""
    found: dict[str, Path] = {}
    folders = list_folders(top)
    for folder in folders:
        split = split_of(folder.name)
        if split in found:
            raise InputError(
                f"{top} holds both {found[split].name} and {folder.name}: keep one of them as the "
                f"{split} split"
            )
        if split:
            found[split] = folder
    others = [folder.name for folder in folders if folder not in found.values()]
    if not found:
        named = {word_of_split(name): name for name in others}
        if "train" in named and len(named.keys() - {None}) > 1:
            raise InputError(
                f"{top} holds {summarize(others, 5)}, which look like splits and not like classes: "
                "rename them to train, val and test"
            )
        return {"train": top}, []
    if "train" not in found:
        names = ", ".join(folder.name for folder in found.values())
        raise InputError(f"{top} holds {names}, but no train folder")
    if others and not list_folders(found["train"]):
        raise InputError(
            f"{top} holds {found['train'].name} beside {summarize(others, 5)}, but no classes in "
            f"it: if these are all classes, put them into a folder {top}/train"
        )
    notes = [f"{top}: ignored beside the splits: {summarize(others)}"] if others else []
    return {split: found[split] for split in SPLIT_NAMES if split in found}, notes
