"""MNIST, from the official idx files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy
import torch
from torch import Tensor

from nuat.data.paths import DatasetSource, RemoteFile, locate, read_verified
from nuat.data.splits import InMemoryDataset, Splits, limit_per_class

MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
HOSTS = "https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"
MNIST_SOURCE = DatasetSource(
    name="mnist",
    subfolder="MNIST/raw",
    description="the four idx.gz files of MNIST",
    homepage=HOSTS[1],
    files=tuple(
        RemoteFile(name, md5, tuple(host + name for host in HOSTS))
        for name, md5 in MNIST_MD5.items()
    ),
)


def load_mnist(train: int | None = None, val: int | None = None, test: int | None = None) -> Splits:
    """70,000 handwritten digits, 28x28, gray: 50,000 train, 10,000 val, 10,000 test.

    The split into train and val is the one of the published GAT code: a permutation of the 60,000
    training images, `numpy.random.RandomState(0).permutation(60000)`, whose last 10,000 are val.

    Args:
        train: number of training images to keep, the first of each class; None keeps all.
        val: number of validation images to keep.
        test: number of test images to keep.

    Raises:
        InputError: the files are missing or are not the official ones.
    """
    folder = locate(MNIST_SOURCE)
    order = torch.from_numpy(numpy.random.RandomState(0).permutation(60_000))
    published = _read(folder, "train")
    train_indices, val_indices = order.split([50_000, 10_000])
    splits = {
        "train": published.subset(train_indices),
        "val": published.subset(val_indices),
        "test": _read(folder, "t10k"),
    }
    splits = limit_per_class(splits, {"train": train, "val": val, "test": test}, classes=10)
    classes = tuple("0123456789")
    return Splits(splits["train"], splits["val"], splits["test"], classes, "mnist")


def _read(folder: Path, prefix: str) -> InMemoryDataset:
    pixels = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", header_bytes=16)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", header_bytes=8)
    return InMemoryDataset(pixels.reshape(-1, 1, 28, 28), labels.long())


def _read_idx(file: Path, header_bytes: int) -> Tensor:
    content = gzip.decompress(read_verified(file, MNIST_MD5[file.name]))
    return torch.frombuffer(bytearray(content[header_bytes:]), dtype=torch.uint8)
