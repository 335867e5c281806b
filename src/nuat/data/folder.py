"""Folders of images: train/CLASS/*.jpg with optional val/ and test/, or CLASS/*.jpg alone."""

from __future__ import annotations

import re
from pathlib import Path

from nuat.data.base import ImageDataset
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
    classes: tuple[str, ...] | None = None,
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
        classes: the names of the class folders to read, by label, others are ignored; None reads
            all.

    Raises:
        InputError: the folder, its layout or an image is invalid.
    """
    check_positive_int("size", size)
    if bad_images not in BAD_IMAGE_ACTIONS:
        raise unknown_name("value of bad_images", str(bad_images), BAD_IMAGE_ACTIONS)
    if workers is not None and not (isinstance(workers, int) and workers >= 0):
        raise InputError(f"workers is {workers!r}, but must be a whole number from 0 up")
    top = Path(path).expanduser()
    if not top.is_dir():
        problem = "is a file, not a folder" if top.exists() else "does not exist"
        fix = "lay it out as train/CLASS/*.jpg"
        if re.search(r"\(\s*\w+\s*=[^)]*$", path):
            fix = f"is a bracket missing? folder:{path})"
        raise InputError(f"folder:{path}: {top.absolute()} {problem}; {fix}")
    folders, folder_notes = _find_split_folders(top)
    names = classes or list_classes(folders["train"])
    files = {split: scan(at, names, strict=classes is None) for split, at in folders.items()}
    scan_notes = [note for labeled in files.values() for note in labeled.notes]
    files, bad_image_notes = _without_bad_images(files, top, bad_images)
    images: dict[str, ImageDataset] = {
        split: ImageFileDataset(labeled.files, labeled.labels, size, workers)
        for split, labeled in files.items()
    }
    name = f"folder:{path}"
    filled, split_notes = fill_missing_splits(images, name, val, test, seed, names)
    notes = (*folder_notes, *scan_notes, *bad_image_notes, *split_notes)
    return Splits(**filled, classes=names, name=name, notes=notes)


def _without_bad_images(
    split_files: dict[str, LabeledFiles], top: Path, action: str
) -> tuple[dict[str, LabeledFiles], list[str]]:
    """Return the files that can be read, and a note on the others; or raise an error for these."""
    files = [file for labeled in split_files.values() for file in labeled.files]
    unreadable = find_unreadable(files, decode_all=action == "skip")
    if not unreadable:
        return split_files, []
    listing = summarize([f"{file.relative_to(top)} ({why})" for file, why in unreadable.items()])
    count = f"{len(unreadable)} of {len(files)} images in {top}"
    if action == "error":
        raise InputError(
            f"{count} cannot be read: {listing}. Repair or delete them, or leave them out with "
            "--bad-images skip"
        )
    kept = {split: labeled.exclude(unreadable) for split, labeled in split_files.items()}
    return kept, [f"{count} cannot be read and are left out: {listing}"]


def _find_split_folders(top: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split in `top`, and notes on the folders beside them."""
    splits: dict[str, Path] = {}
    folders = list_folders(top)
    for folder in folders:
        split = split_of(folder.name)
        if split in splits:
            raise InputError(
                f"{top} holds both {splits[split].name} and {folder.name}: keep one of them as the "
                f"{split} split"
            )
        if split:
            splits[split] = folder
    others = [folder.name for folder in folders if folder not in splits.values()]
    if not splits:
        named = {word_of_split(name): name for name in others}
        if "train" in named and len(named.keys() - {None}) > 1:
            raise InputError(
                f"{top} holds {summarize(others, 5)}, which look like splits and not like classes: "
                "rename them to train, val and test"
            )
        return {"train": top}, []
    if "train" not in splits:
        names = ", ".join(folder.name for folder in splits.values())
        raise InputError(f"{top} holds {names}, but no train folder")
    if others and not list_folders(splits["train"]):
        raise InputError(
            f"{top} holds {splits['train'].name} beside {summarize(others, 5)}, but no classes in "
            f"it: if these are all classes, put them into a folder {top}/train"
        )
    notes = [f"{top}: ignored beside the splits: {summarize(others)}"] if others else []
    return {split: splits[split] for split in SPLIT_NAMES if split in splits}, notes
