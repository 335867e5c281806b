"""CIFAR-10 and CIFAR-100, from the official Python pickles."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from nuat.data.paths import DatasetSource, RemoteFile, locate, read_verified
from nuat.data.splits import (
    SPLIT_NAMES,
    InMemoryDataset,
    Splits,
    hold_out_first,
    limit_per_class,
)

CIFAR10_CLASSES = (
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


def _source(name: str, subfolder: str, title: str, archive: str, md5: str) -> DatasetSource:
    return DatasetSource(
        name=name,
        subfolder=subfolder,
        description=f"the Python version of {title}",
        homepage=f"{HOSTS[0]}cifar.html",
        files=(RemoteFile(archive, md5, tuple(host + archive for host in HOSTS)),),
    )


CIFAR10_SOURCE = _source(
    "cifar10",
    "cifar-10-batches-py",
    "CIFAR-10",
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
)
CIFAR100_SOURCE = _source(
    "cifar100",
    "cifar-100-python",
    "CIFAR-100",
    "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
)
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def load_cifar10(
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    classes: int = len(CIFAR10_CLASSES),
) -> Splits:
    """60,000 photographs, 32x32, RGB, of 10 classes; 49,000 train, 1,000 val, 10,000 test.

    The validation images are the first 100 of each class of the published training set, as in the
    published NuAT code.

    Args:
        train: number of training images to keep, the first of each class; None keeps all.
        val: number of validation images to keep.
        test: number of test images to keep.
        classes: keep only the first so many classes.

    Raises:
        InputError: the files are missing or are not the official ones.
    """
    folder = locate(CIFAR10_SOURCE)
    published = _read(folder, [f"data_batch_{i}" for i in range(1, 6)], CIFAR10_MD5, b"labels")
    images = (
        *hold_out_first(published, 100),
        _read(folder, ["test_batch"], CIFAR10_MD5, b"labels"),
    )
    splits = {
        name: part.subset((part.y < classes).nonzero()[:, 0])
        for name, part in zip(SPLIT_NAMES, images, strict=True)
    }
    splits = limit_per_class(splits, {"train": train, "val": val, "test": test}, classes)
    classes_kept = CIFAR10_CLASSES[:classes]
    return Splits(splits["train"], splits["val"], splits["test"], classes_kept, "cifar10")


def load_cifar100() -> Splits:
    """60,000 photographs, 32x32, RGB, of 100 classes: 49,000 train, 1,000 val, 10,000 test.

    The labels are the fine ones. The validation images are the first 10 of each class of the
    published training set (ours, after the example of CIFAR-10).

    Raises:
        InputError: the files are missing or are not the official ones.
    """
    folder = locate(CIFAR100_SOURCE)
    names = _unpickle_verified(folder / "meta", CIFAR100_MD5["meta"])[b"fine_label_names"]
    train, val = hold_out_first(_read(folder, ["train"], CIFAR100_MD5, b"fine_labels"), 10)
    test = _read(folder, ["test"], CIFAR100_MD5, b"fine_labels")
    return Splits(train, val, test, tuple(name.decode() for name in names), "cifar100")


def _read(
    folder: Path, names: Sequence[str], md5: dict[str, str], label_key: bytes
) -> InMemoryDataset:
    batches = [_unpickle_verified(folder / name, md5[name]) for name in names]
    pixels = numpy.concatenate([batch[b"data"] for batch in batches])
    labels = [label for batch in batches for label in batch[label_key]]
    return InMemoryDataset(torch.from_numpy(pixels).reshape(-1, 3, 32, 32), torch.tensor(labels))


def _unpickle_verified(file: Path, md5: str) -> dict[bytes, Any]:
    # A pickle can run code, so only content with the published checksum is ever unpickled.
    content = read_verified(file, md5)
    batch: dict[bytes, Any] = pickle.load(io.BytesIO(content), encoding="bytes")
    return batch
