"""CIFAR-10, from the official python batches."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy
import torch

from nuat.data.places import find
from nuat.data.splits import Images, Splits, first_of_each_class
from nuat.errors import InputError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def cifar10(
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    classes: int = len(CLASSES),
) -> Splits:
    """50,000 + 10,000 photographs, 32x32, RGB, of 10 classes; 49,000 train, 1,000 val, 10,000 test.

    The validation images are the first 100 of each class of the published training set, as in the
    published NuAT code. `train`, `val` and `test` keep only so many images of these splits, the
    first of each class; `classes` keeps only the first so many classes. Looks for
    `cifar-10-batches-py` (see `nuat.data.places`), and checks every file.
    """
    folder = find("cifar10", "cifar-10-batches-py", "the CIFAR-10 python version")
    whole = _read(folder, [f"data_batch_{i}" for i in range(1, 6)])
    held_out = first_of_each_class(whole.y, 100)
    kept = torch.ones(len(whole), dtype=torch.bool)
    kept[held_out] = False
    parts = {
        "train": whole.take(kept.nonzero()[:, 0]),
        "val": whole.take(held_out),
        "test": _read(folder, ["test_batch"]),
    }
    parts = {
        name: images.take((images.y < classes).nonzero()[:, 0]) for name, images in parts.items()
    }
    for name, count in (("train", train), ("val", val), ("test", test)):
        if count is not None:
            parts[name] = _some(name, parts[name], count, classes)
    return Splits(**parts, classes=CLASSES[:classes], name="cifar10")


def _some(name: str, images: Images, count: int, classes: int) -> Images:
    if not 0 < count <= len(images) or count % classes:
        raise InputError(
            f"{name} is {count}, but must be a multiple of {classes} (classes) up to {len(images)}"
        )
    return images.take(first_of_each_class(images.y, count // classes))


def _read(folder: Path, names: list[str]) -> Images:
    batches = [_unpickle(folder / name) for name in names]
    pixels = numpy.concatenate([batch[b"data"] for batch in batches])
    labels = [label for batch in batches for label in batch[b"labels"]]
    return Images(torch.from_numpy(pixels).reshape(-1, 3, 32, 32), torch.tensor(labels))


def _unpickle(file: Path) -> dict[bytes, Any]:
    if not file.exists():
        raise InputError(f"{file} is missing: {file.parent} is not the whole CIFAR-10")
    content = file.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[file.name]:
        raise InputError(f"{file} is not the official file (its md5 differs): fetch it again")
    batch: dict[bytes, Any] = pickle.load(io.BytesIO(content), encoding="bytes")
    return batch
