"""CIFAR-10, from the official python batches."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from nuat.data.paths import DatasetSource, RemoteFile, checked, find
from nuat.data.sampling import first_of_each_class, without
from nuat.data.splits import InMemoryDataset, Splits, limit_per_class

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
HOSTS = "https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"
ARCHIVE = "cifar-10-python.tar.gz"
OFFICIAL = DatasetSource(
    name="cifar10",
    inside="cifar-10-batches-py",
    what="the python version of CIFAR-10",
    page=f"{HOSTS[0]}cifar.html",
    files=(
        RemoteFile(ARCHIVE, "c58f30108f718f92721af3b95e74349a", tuple(h + ARCHIVE for h in HOSTS)),
    ),
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
    `cifar-10-batches-py` (see `nuat.data.paths`), and checks every file.
    """
    folder = find(OFFICIAL)
    whole = _read(folder, [f"data_batch_{i}" for i in range(1, 6)])
    held = first_of_each_class(whole.y, 100)
    parts = {
        "train": whole.subset(without(whole.y, held)),
        "val": whole.subset(held),
        "test": _read(folder, ["test_batch"]),
    }
    parts = {
        name: images.subset((images.y < classes).nonzero()[:, 0]) for name, images in parts.items()
    }
    parts = limit_per_class(parts, {"train": train, "val": val, "test": test}, classes)
    return Splits(**parts, classes=CLASSES[:classes], name="cifar10")


def _read(folder: Path, names: list[str]) -> InMemoryDataset:
    batches = [unpickled(folder / name, MD5[name]) for name in names]
    labels = [label for batch in batches for label in batch[b"labels"]]
    return InMemoryDataset(pixels(batches), torch.tensor(labels))


def pixels(batches: list[dict[bytes, Any]]) -> Tensor:
    """The images of official batches, uint8 [N, 3, 32, 32]."""
    rows = numpy.concatenate([batch[b"data"] for batch in batches])
    return torch.from_numpy(rows).reshape(-1, 3, 32, 32)


def unpickled(file: Path, md5: str) -> dict[bytes, Any]:
    """What a pickle of this md5 holds; one of another md5 is refused and never unpickled."""
    batch: dict[bytes, Any] = pickle.load(io.BytesIO(checked(file, md5)), encoding="bytes")
    return batch
