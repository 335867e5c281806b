"""CIFAR-100, from the official python files."""

from __future__ import annotations

from pathlib import Path

import torch

from nuat.data.cifar10 import HOSTS, pixels, unpickled
from nuat.data.paths import DatasetSource, RemoteFile, find
from nuat.data.sampling import first_of_each_class, without
from nuat.data.splits import InMemoryDataset, Splits

ARCHIVE = "cifar-100-python.tar.gz"
OFFICIAL = DatasetSource(
    name="cifar100",
    inside="cifar-100-python",
    what="the python version of CIFAR-100",
    page=f"{HOSTS[0]}cifar.html",
    files=(
        RemoteFile(ARCHIVE, "eb9058c3a382ffc7106e4002c42a8d85", tuple(h + ARCHIVE for h in HOSTS)),
    ),
)
MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def cifar100() -> Splits:
    """60,000 photographs, 32x32, RGB, of 100 classes: 49,000 train, 1,000 val, 10,000 test.

    Fine labels. The validation images are the first 10 of each class of the published training
    set: ours, by the example of CIFAR-10. Looks for `cifar-100-python` (see `nuat.data.paths`),
    and checks every file.
    """
    folder = find(OFFICIAL)
    names = unpickled(folder / "meta", MD5["meta"])[b"fine_label_names"]
    whole = _read(folder, "train")
    held = first_of_each_class(whole.y, 10)
    train, val = whole.subset(without(whole.y, held)), whole.subset(held)
    classes = tuple(name.decode() for name in names)
    return Splits(train, val, _read(folder, "test"), classes, "cifar100")


def _read(folder: Path, name: str) -> InMemoryDataset:
    batch = unpickled(folder / name, MD5[name])
    return InMemoryDataset(pixels([batch]), torch.tensor(batch[b"fine_labels"]))
