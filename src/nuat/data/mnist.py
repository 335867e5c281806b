"""MNIST, from the official idx files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy
import torch
from torch import Tensor

from nuat.data.paths import DatasetSource, RemoteFile, checked, find
from nuat.data.splits import InMemoryDataset, Splits, limit_per_class

MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

HOSTS = "https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"
OFFICIAL = DatasetSource(
    name="mnist",
    inside="MNIST/raw",
    what="the four idx.gz files of MNIST",
    page=HOSTS[1],
    files=tuple(RemoteFile(name, md5, tuple(h + name for h in HOSTS)) for name, md5 in MD5.items()),
)


def mnist(train: int | None = None, val: int | None = None, test: int | None = None) -> Splits:
    """70,000 handwritten digits, 28x28, grey: 50,000 train, 10,000 val, 10,000 test.

    The validation images are the last 10,000 of a shuffle of the published training set by numpy's
    seed 0; the published GAT code shuffles with that seed too, its exact draw is not reproduced.
    `train`, `val` and `test` keep only so many images of these splits, the first of each class.
    Looks for `MNIST/raw` (see `nuat.data.paths`); every file is checked.
    """
    folder = find(OFFICIAL)
    order = torch.from_numpy(numpy.random.RandomState(0).permutation(60_000))
    whole = _read(folder, "train")
    first, last = (whole.subset(part) for part in order.split([50_000, 10_000]))
    parts = {"train": first, "val": last, "test": _read(folder, "t10k")}
    parts = limit_per_class(parts, {"train": train, "val": val, "test": test}, classes=10)
    return Splits(**parts, classes=tuple("0123456789"), name="mnist")


def _read(folder: Path, which: str) -> InMemoryDataset:
    pixels = _bytes(folder / f"{which}-images-idx3-ubyte.gz", header=16)
    labels = _bytes(folder / f"{which}-labels-idx1-ubyte.gz", header=8)
    return InMemoryDataset(pixels.reshape(-1, 1, 28, 28), labels.long())


def _bytes(file: Path, header: int) -> Tensor:
    content = gzip.decompress(checked(file, MD5[file.name]))
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8)
