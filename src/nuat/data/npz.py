"""A numpy archive of images and labels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from nuat.data.splits import NAMES, InMemoryDataset, Splits, fill_missing_splits
from nuat.errors import InputError

KEYS = ("x_{}", "y_{}"), ("{}_images", "{}_labels")
"""How the arrays of a split may be called; the second way is that of MedMNIST."""


def npz(path: str, val: float = 0.1, test: float = 0.2, seed: int = 0) -> Splits:
    """npz:PATH, arrays x_train, y_train, and x_val, y_val, x_test, y_test if there are any.

    Images [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, uint8 or floats in [0, 1];
    labels are whole numbers from 0. `classes` may hold their names. What is missing is held out as
    for folder:PATH. Pickles in the archive are never run.
    """
    file = Path(path).expanduser()
    arrays = _arrays(file)
    parts = {}
    for split in NAMES:
        for x_key, y_key in ((x.format(split), y.format(split)) for x, y in KEYS):
            if x_key in arrays and y_key in arrays:
                parts[split] = InMemoryDataset(
                    _images(arrays[x_key], f"{file}, {x_key}"),
                    _labels(arrays[y_key], f"{file}, {y_key}"),
                )
    if "train" not in parts:
        raise InputError(
            f"{file} holds {', '.join(arrays) or 'nothing'}; it should hold x_train and y_train"
        )
    done, notes = fill_missing_splits(parts, f"npz:{path}", val, test, seed)
    names = arrays.get("classes")
    classes = _names(parts["train"].y) if names is None else tuple(str(name) for name in names)
    return Splits(**done, classes=classes, name=f"npz:{path}", notes=notes)


def _arrays(file: Path) -> Mapping[str, NDArray]:
    if not file.is_file():
        raise InputError(f"there is no file {file.absolute()}")
    try:
        archive = numpy.load(file, allow_pickle=False)
        if isinstance(archive, numpy.ndarray):
            raise InputError(f"{file} holds one array; save an archive with numpy.savez")
        with archive:
            return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise InputError(f"{file} cannot be read: {error}") from None
        raise InputError(
            f"{file} holds Python objects (a pickle), which could run code, or is no archive: "
            "save arrays of numbers with numpy.savez"
        ) from None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} cannot be read as a numpy archive: {error}") from None


def _images(x: NDArray, what: str) -> Tensor:
    if x.dtype != numpy.uint8 and x.dtype.kind != "f":
        raise InputError(f"{what} is {x.dtype}, but images are uint8, or floats in [0, 1]")
    if x.ndim == 3:
        return torch.from_numpy(x)[:, None]
    first, last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise InputError(
            f"{what} is of shape {list(x.shape)}, but must be [N, H, W], [N, H, W, C] or "
            "[N, C, H, W] with 1 or 3 channels"
        )
    tensor = torch.from_numpy(x)
    return tensor if first else tensor.permute(0, 3, 1, 2).contiguous()


def _labels(y: NDArray, what: str) -> Tensor:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise InputError(
            f"{what} is {y.dtype} of shape {list(y.shape)}, but labels are whole numbers [N] from 0"
        )
    return torch.from_numpy(y.astype(numpy.int64))


def _names(y: Tensor) -> tuple[str, ...]:
    return tuple(str(label) for label in range(int(y.max()) + 1)) if len(y) else ()
