"""SVHN, the cropped digits, from the official MATLAB files."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from nuat.data.paths import DatasetSource, RemoteFile, locate, read_verified
from nuat.data.splits import InMemoryDataset, Splits, hold_out_first
from nuat.runtime.extras import import_extra

SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
HOST = "http://ufldl.stanford.edu/housenumbers/"
SVHN_SOURCE = DatasetSource(
    name="svhn",
    subfolder="svhn",
    description="train_32x32.mat and test_32x32.mat (format 2, cropped digits)",
    homepage=HOST,
    files=tuple(RemoteFile(name, md5, (HOST + name,)) for name, md5 in SVHN_MD5.items()),
)


def load_svhn() -> Splits:
    """99,289 house numbers, 32x32, RGB, of 10 digits: 72,257 train, 1,000 val, 26,032 test.

    The validation images are the first 100 of each class of the published training set (ours, after
    the example of CIFAR-10). The published `extra` images are not used. The label of the digit 0,
    which is 10 in the files, is 0.

    Raises:
        InputError: the files are missing or are not the official ones, or scipy, which comes with
            the `demo` extra, is not installed.
    """
    folder = locate(SVHN_SOURCE)
    train, val = hold_out_first(_read(folder / "train_32x32.mat"), 100)
    return Splits(train, val, _read(folder / "test_32x32.mat"), tuple("0123456789"), "svhn")


def _read(file: Path) -> InMemoryDataset:
    scipy_io = import_extra("demo", "the data set svhn, of MATLAB files,", "scipy.io")
    content = scipy_io.loadmat(io.BytesIO(read_verified(file, SVHN_MD5[file.name])))
    x = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()  # from [H, W, C, N]
    return InMemoryDataset(x, torch.from_numpy(content["y"]).flatten().long() % 10)
