"""Numpy archives of images and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor

from nuat.data.conversion import to_labels, to_tensor
from nuat.data.names import split_of
from nuat.data.splits import SPLIT_NAMES, InMemoryDataset, Splits, fill_missing_splits
from nuat.data.validation import number_classes
from nuat.errors import InputError

X_NAMES, Y_NAMES = ("x", "images", "image", "data"), ("y", "labels", "label", "targets")
"""What the name of an array contains beside that of its split: `x_train`, or `train_images`."""

Array = NDArray[Any]


def load_npz(path: str, val: float = 0.1, test: float = 0.2, seed: int = 0) -> Splits:
    """npz:PATH, an archive of x_train, y_train, and optionally x_val, y_val, x_test, y_test.

    Images are [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, uint8 or floats in
    [0, 1]; labels are integers [N] from 0. The optional array `classes` holds the class names.
    Pickles in the archive are refused.

    Args:
        path: the archive, as numpy.savez writes it.
        val: fraction of each class that is held out of train if there is no val split.
        test: fraction of each class that is held out of train if there is no test split.
        seed: seed of that draw.

    Raises:
        InputError: the archive cannot be read, or its arrays are invalid.
    """
    file = Path(path).expanduser()
    arrays = _read_arrays(file)
    splits = {
        split: InMemoryDataset(
            _to_images(arrays[x_key], f"{file}, {x_key}"), to_labels(arrays[y_key])
        )
        for split, (x_key, y_key) in _find_splits(file, arrays).items()
    }
    if "train" not in splits:
        raise InputError(
            f"{file} holds {', '.join(arrays) or 'nothing'}; it should hold x_train and y_train"
        )
    names = arrays.get("classes")
    if names is None:
        labels = [images.y for images in splits.values()]
        classes = number_classes(splits["train"].y, labels, str(file))
    elif names.ndim != 1:
        raise InputError(f"{file}: classes is of shape {list(names.shape)}, but must be a list")
    else:
        classes = tuple(map(str, names))
    filled, notes = fill_missing_splits(splits, f"npz:{path}", val, test, seed)
    return Splits(**filled, classes=classes, name=f"npz:{path}", notes=notes)


def _read_arrays(file: Path) -> Mapping[str, Array]:
    if not file.is_file():
        raise InputError(f"there is no file {file.absolute()}")
    try:
        archive = numpy.load(file, allow_pickle=False)
        if isinstance(archive, numpy.ndarray):
            raise InputError(f"{file} holds one array; save an archive with numpy.savez")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise errors of any kind for a damaged archive
        raise InputError(
            f"{file} cannot be read as an archive of arrays of numbers, as numpy.savez writes it: "
            f"{error}"
        ) from None
    for name, array in arrays.items():
        if not isinstance(array, numpy.ndarray):  # numpy returns the bytes of any other member
            raise InputError(f"{file}: {name} is not an array: save arrays with numpy.savez")
    return arrays


def _find_splits(file: Path, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return for each split the names of its images and labels."""
    arrays: dict[tuple[str, bool], str] = {}
    for name in names:
        for part, rest in (name.split("_", 1), name.rsplit("_", 1)[::-1]) if "_" in name else ():
            split, is_x = split_of(rest), part.lower() in X_NAMES
            if split and (is_x or part.lower() in Y_NAMES):
                other = arrays.setdefault((split, is_x), name)
                if other != name:
                    raise InputError(f"{file} holds both {other} and {name}: keep one of them")
    for (split, is_x), name in arrays.items():
        if (split, not is_x) not in arrays:
            missing = "labels (y" if is_x else "images (x"
            raise InputError(f"{file} holds {name}, but no {missing}_{split}) for it")
    return {
        split: (arrays[split, True], arrays[split, False])
        for split in SPLIT_NAMES
        if (split, True) in arrays
    }


def _to_images(x: Array, description: str) -> Tensor:
    if x.ndim == 3:
        return to_tensor(x)[:, None]
    channels_first, channels_last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, 3))
    if channels_first == channels_last:  # neither, or ambiguous
        raise InputError(
            f"{description} is of shape {list(x.shape)}, but must be [N, H, W], [N, H, W, C] or "
            "[N, C, H, W] with 1 or 3 channels"
        )
    images = to_tensor(x)
    return images if channels_first else images.permute(0, 3, 1, 2).contiguous()
