"""Tiny-ImageNet, from the official folder."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from nuat.data.image_folder import summarize
from nuat.data.image_io import read_rgb, to_tensor
from nuat.data.loader import default_workers
from nuat.data.paths import DatasetSource, locate
from nuat.data.splits import InMemoryDataset, Splits, hold_out_first
from nuat.errors import InputError

SOURCE = DatasetSource(
    name="tiny-imagenet",
    subfolder="tiny-imagenet-200",
    description="the folder in tiny-imagenet-200.zip",
    homepage="http://cs231n.stanford.edu/",
)
SIZE = 64


def load_tiny_imagenet() -> Splits:
    """110,000 photographs, 64x64, RGB, of 200 classes: 98,000 train, 2,000 val, 10,000 test.

    The published test images have no labels, so the published val images are the test split. The
    validation images are the first 10 of each class of train, by the number in their names (ours).
    All images are held in memory, 1.4 GB.

    Raises:
        InputError: a file or a class is missing, or an image cannot be read.
    """
    top = locate(SOURCE)
    classes = tuple(sorted(_lines(top / "wnids.txt")))
    train, val = hold_out_first(_read(_train_files(top, classes)), 10)
    return Splits(train, val, _read(_val_files(top, classes)), classes, "tiny-imagenet")


def _train_files(top: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The files train/CLASS/images/CLASS_NUMBER.JPEG and their labels."""
    found = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((top / "train" / name / "images").glob("*.JPEG"), key=_number)
    ]
    if lost := sorted(set(range(len(classes))) - {label for _, label in found}):
        raise InputError(
            f"{top / 'train'} has no images of {len(lost)} of the {len(classes)} classes: "
            f"{summarize([classes[label] for label in lost])}; it holds them as "
            "n01443537/images/n01443537_0.JPEG"
        )
    return found


def _number(file: Path) -> tuple[int, str]:
    digits = file.stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1, file.name


def _val_files(top: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The files val/images/NAME and their labels, by the lines NAME, CLASS, box of the list."""
    annotations = top / "val" / "val_annotations.txt"
    images = top / "val" / "images"
    labels = {name: label for label, name in enumerate(classes)}
    found = []
    for line in _lines(annotations):
        name, wordnet_id = [*line.split("\t"), ""][:2]
        if wordnet_id not in labels or not (images / name).is_file():
            raise InputError(
                f"{annotations}: the line {line!r} names no image in {images}, or no "
                "class of wnids.txt: unpack the official archive again"
            )
        found.append((images / name, labels[wordnet_id]))
    return found


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"{file} is missing: unpack the official archive again")
    return file.read_text().splitlines()


def _read(files: Sequence[tuple[Path, int]]) -> InMemoryDataset:
    """The images in memory, uint8."""
    x = torch.empty(len(files), 3, SIZE, SIZE, dtype=torch.uint8)

    def read(index: int) -> None:
        image = read_rgb(files[index][0])
        if image.size != (SIZE, SIZE):
            raise InputError(f"{files[index][0]} is {image.size}, but must be 64x64")
        x[index] = to_tensor(image)

    # Pillow releases the GIL while it decodes
    with ThreadPoolExecutor(max(1, default_workers())) as pool:
        for _ in pool.map(read, range(len(files))):
            pass
    return InMemoryDataset(x, torch.tensor([label for _, label in files]))
