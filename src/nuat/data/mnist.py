"""MNIST, from the official idx files."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy
import torch
from torch import Tensor

from nuat.data.places import find
from nuat.data.splits import Images, Splits
from nuat.errors import InputError

MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def mnist() -> Splits:
    """70,000 handwritten digits, 28x28, grey: 50,000 train, 10,000 val, 10,000 test.

    The validation images are the last 10,000 of a shuffle of the published training set by numpy's
    seed 0; the published GAT code shuffles with that seed too, its exact draw is not reproduced.
    Looks for `MNIST/raw` (see `nuat.data.places`); every file is checked.
    """
    folder = find("mnist", "MNIST/raw", "the four idx.gz files of MNIST")
    order = torch.from_numpy(numpy.random.RandomState(0).permutation(60_000))
    whole = _read(folder, "train")
    train, val = (whole.take(part) for part in order.split([50_000, 10_000]))
    return Splits(train, val, _read(folder, "t10k"), tuple("0123456789"), "mnist")


def _read(folder: Path, which: str) -> Images:
    pixels = _bytes(folder / f"{which}-images-idx3-ubyte.gz", header=16)
    labels = _bytes(folder / f"{which}-labels-idx1-ubyte.gz", header=8)
    return Images(pixels.reshape(-1, 1, 28, 28), labels.long())


def _bytes(file: Path, header: int) -> Tensor:
    if not file.exists():
        raise InputError(f"{file} is missing: {file.parent} is not the whole MNIST")
    content = file.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[file.name]:
        raise InputError(f"{file} is not the official file (its md5 differs): fetch it again")
    return torch.frombuffer(bytearray(gzip.decompress(content)[header:]), dtype=torch.uint8)
