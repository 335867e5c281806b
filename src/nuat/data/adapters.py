"""Images that a Python program hands over: tensors, Datasets, DataLoaders, any iterable."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from nuat.data.augment import Augment
from nuat.data.base import ImageDataset
from nuat.data.loader import StreamedDataset
from nuat.data.splits import NAMES, InMemoryDataset, Splits, fill_missing_splits
from nuat.data.validation import check_images, check_labels
from nuat.errors import InputError
from nuat.rng import derive_seed

WANTED = "a pair of tensors (x, y), a torch Dataset or DataLoader, or an iterable of (x, y)"


def as_splits(given: Any, name: str = "data") -> Splits:
    """A data set out of what a program hands over.

    Args:
        given: Splits; or a mapping of "train" and, if there are any, "val", "test" and "classes"
            (their names); or the training images alone. Images are what `as_dataset` takes. What is
            missing is held out as for folder:PATH, and the data's notes say so.
        name: what it is called.

    Raises:
        InputError: it cannot be used.
    """
    if isinstance(given, Splits):
        return given
    given = given if isinstance(given, Mapping) else {"train": given}
    strange = [key for key in given if key not in (*NAMES, "classes")]
    if strange or "train" not in given:
        raise InputError(
            f"{name} is a mapping of {', '.join(map(str, given)) or 'nothing'}; it should have "
            "train, and may have val, test and classes"
        )
    parts = {split: as_dataset(given[split]) for split in NAMES if split in given}
    done, notes = fill_missing_splits(parts, name)
    own = given.get("classes") or getattr(given["train"], "classes", None)
    classes = own or range(int(parts["train"].y.max()) + 1)
    return Splits(**done, classes=tuple(map(str, classes)), name=name, notes=notes)


def as_dataset(given: Any) -> ImageDataset:
    """Images with labels, out of what a program hands over.

    A Dataset, and that of a DataLoader with torch's own collate_fn, stays where it is and is read
    by as many workers as the loader has: the batch size is the recipe's, the order ours, and what
    is random in it is seeded by (seed, epoch, place). Any other iterable of (x, y), batches or
    single images, is read once, into memory.

    Raises:
        InputError: it is nothing of the kind.
    """
    if isinstance(given, ImageDataset):
        return given
    if isinstance(given, tuple | list) and len(given) == 2 and all(map(_is_array, given)):
        return InMemoryDataset(*(torch.as_tensor(part) for part in given))
    if isinstance(given, DataLoader) and _is_plain(given):
        return _dataset(given.dataset, given.num_workers)
    if isinstance(given, Dataset) and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return _dataset(given, 0)
    if isinstance(given, Iterable) and not isinstance(given, str | Mapping | Tensor):
        return _in_memory(given)
    raise InputError(f"images were given as a {type(given).__name__}, not as {WANTED}")


def _is_array(part: Any) -> bool:
    return isinstance(part, Tensor | numpy.ndarray)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether an epoch of it is its data set, each image once, put together in batches."""
    if (
        isinstance(loader.dataset, IterableDataset)
        or type(loader.batch_sampler) is not BatchSampler
    ):
        return False
    each_once = isinstance(loader.sampler, SequentialSampler) or (
        isinstance(loader.sampler, RandomSampler)
        and not loader.sampler.replacement
        and len(loader.sampler) == len(loader.dataset)  # type: ignore[arg-type]
    )
    return each_once and loader.collate_fn is default_collate


def _in_memory(batches: Iterable[Any]) -> InMemoryDataset:
    xs, ys = [], []
    for pair in batches:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"an iterable of images gave a {type(pair).__name__}, not (x, y)")
        x, y = _tensor(pair[0]), torch.as_tensor(pair[1])
        xs.append(x if x.ndim == 4 else x[None])
        ys.append(y.reshape(1) if y.ndim == 0 else y)
    if not xs:
        raise InputError("an iterable of images gave none; was it used up before?")
    shapes = sorted({tuple(x.shape[1:]) for x in xs})
    if len(shapes) > 1:
        raise InputError(f"images are of different shapes, {shapes[0]} and {shapes[1]}")
    return InMemoryDataset(torch.cat(xs), torch.cat(ys))


def _tensor(x: Any) -> Tensor:
    if isinstance(x, Image.Image):
        pixels = torch.from_numpy(numpy.array(x))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if not _is_array(x):
        raise InputError(f"an image is a {type(x).__name__}, not a tensor [C, H, W] in [0, 1]")
    return torch.as_tensor(x)


def _dataset(data: Any, workers: int) -> ImageDataset:
    if type(data) is TensorDataset and len(data.tensors) == 2:
        return InMemoryDataset(*data.tensors)
    if not len(data):
        raise InputError("the Dataset is empty")
    with seeded(0):
        first = _item(data, 0)[0]
    if first.ndim != 3:
        raise InputError(f"images of the Dataset are {list(first.shape)}, not [C, H, W]")
    labels = getattr(data, "targets", None)
    if labels is None or getattr(data, "target_transform", None) or len(labels) != len(data):
        with seeded(0):
            labels = [_item(data, place)[1] for place in range(len(data))]
    channels, height, width = first.shape
    return DatasetImages(data, _numbers(labels), (channels, height, width), workers)


def _numbers(labels: Any) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        kind = type(labels[0]).__name__
        raise InputError(f"a label of the Dataset is a {kind}, not a whole number") from None


def _item(data: Any, place: int) -> tuple[Tensor, Any]:
    pair = data[place]
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"the Dataset gives a {type(pair).__name__}, not a pair (x, y)")
    return _tensor(pair[0]), pair[1]


@dataclass(frozen=True)
class DatasetImages(StreamedDataset):
    """A torch Dataset of (x, y); `places` are those of it that count, all by default."""

    data: Any
    y: Tensor
    size: tuple[int, int, int]
    workers: int | None = 0
    device: torch.device | str = "cpu"
    places: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.size

    def check(self, classes: int | None = None) -> None:
        """Raise InputError unless the first image and, if told, all labels are fit."""
        check_images(self.read(0, 0, None)[None])
        if classes is not None:
            check_labels(self.y, len(self.y), classes)

    def check_augment(self, augment: Augment) -> None:
        """Raise InputError for what only files allow."""
        ImageDataset.check_augment(self, augment)

    def to(self, device: torch.device | str) -> DatasetImages:
        """The same images on a device."""
        return replace(self, y=self.y.to(device), device=device)

    def subset(self, indices: Tensor) -> DatasetImages:
        """A part of the images."""
        places = indices.cpu() if self.places is None else self.places[indices.cpu()]
        return replace(self, y=self.y[indices.to(self.y.device)], places=places)

    def read(self, place: int, seed: int, augment: Augment | None) -> Tensor:
        """Image [C, H, W]; its augmentations and ours are a function of the seed and the place."""
        there = place if self.places is None else int(self.places[place])
        with seeded(derive_seed(seed, "item", place)):
            x, y = _item(self.data, there)
        try:
            check_images(x[None])
        except InputError as error:
            raise InputError(f"image {there} of the Dataset: {error}") from None
        if tuple(x.shape) != self.shape or int(y) != int(self.y[place]):
            raise InputError(
                f"image {there} of the Dataset is {list(x.shape)} of class {int(y)}, but should be "
                f"{list(self.shape)} of class {int(self.y[place])}, as it was or said before"
            )
        own = torch.Generator().manual_seed(derive_seed(seed, "image", place))
        return augment(x[None], own)[0] if augment else x


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python's random for a while, and put them back."""
    python, numbers = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(numbers)
