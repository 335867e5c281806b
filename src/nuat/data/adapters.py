"""Data sets made from Python objects: tensors, torch Datasets, DataLoaders, any iterable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from nuat.data.augment import Augment
from nuat.data.base import ImageDataset
from nuat.data.classes import match_classes
from nuat.data.conversion import image_to_tensor, is_array, to_label, to_labels, to_tensor
from nuat.data.loader import StreamedDataset
from nuat.data.names import split_of
from nuat.data.splits import SPLIT_NAMES, InMemoryDataset, Splits, fill_missing_splits
from nuat.data.validation import check_images, check_labels, number_classes
from nuat.errors import InputError
from nuat.rng import derive_seed, seeded

ACCEPTED = "a pair of tensors (x, y), a torch Dataset or DataLoader, or an iterable of (x, y)"


def as_splits(data: Any, name: str = "data") -> Splits:
    """Convert a Python object to `Splits`.

    Args:
        data: Splits; or a mapping with the key "train" and optionally "val", "test" and "classes"
            (class names); or the training images alone. Images are an argument of `as_dataset`.
            Missing splits are held out of train, and the notes of the result say so.
        name: the name of the data set.

    Raises:
        InputError: the data cannot be used.
    """
    if isinstance(data, Splits):
        return data
    data = data if isinstance(data, Mapping) else {"train": data}
    keys = {split_of(str(key)) or key: key for key in data}
    if keys.keys() - {*SPLIT_NAMES, "classes"} or "train" not in keys or len(keys) < len(data):
        raise InputError(
            f"{name} is a mapping with the keys {', '.join(map(str, data)) or '(none)'}; it should "
            "have train, and may have val, test and classes"
        )
    splits = {split: as_dataset(data[keys[split]]) for split in SPLIT_NAMES if split in keys}
    if own_names := splits["train"].classes:
        for split, images in splits.items():
            owner = f"{name}, train split"
            splits[split], _ = match_classes(images, own_names, owner, subset=True)
    classes = data.get("classes") or own_names
    if not classes:
        classes = number_classes(splits["train"].y, [each.y for each in splits.values()], name)
    filled, notes = fill_missing_splits(splits, name)
    return Splits(**filled, classes=tuple(map(str, classes)), name=name, notes=notes)


def as_dataset(images: Any) -> ImageDataset:
    """Convert labeled images to an `ImageDataset`.

    A torch Dataset is read when its images are needed. So is the Dataset of a DataLoader with
    torch's default sampler and collate_fn, with as many workers as the loader has; the recipe
    chooses the batch size, nuat the order. Random transforms are seeded by (seed, index). Any other
    iterable of batches or single images is read into memory once.

    Args:
        images: a pair of tensors or arrays (x, y), a torch Dataset or DataLoader, or an iterable of
            (x, y). Images are [C, H, W] or batches [B, C, H, W] in [0, 1].

    Raises:
        InputError: `images` is none of these, or is empty.
    """
    if isinstance(images, ImageDataset):
        return images
    dataset = _read(images)
    return replace(dataset, classes=_class_names(images, dataset.y))


def _read(images: Any) -> InMemoryDataset | TorchDatasetAdapter:
    if isinstance(images, tuple | list) and len(images) == 2 and all(map(is_array, images)):
        return InMemoryDataset(to_tensor(images[0]), to_labels(images[1]))
    if isinstance(images, DataLoader) and _reads_each_image_once(images):
        return _from_torch_dataset(images.dataset, images.num_workers)
    if (
        isinstance(images, Dataset)
        and hasattr(images, "__getitem__")
        and hasattr(images, "__len__")
    ):
        return _from_torch_dataset(images, 0)
    if isinstance(images, Iterable) and not isinstance(images, str | Mapping | Tensor):
        return _read_into_memory(images)
    raise InputError(f"images were given as a {type(images).__name__}, not as {ACCEPTED}")


def _class_names(data: Any, y: Tensor) -> tuple[str, ...] | None:
    """Return the class names that a torch Dataset has in `classes`, as torchvision's have."""
    while isinstance(data, DataLoader | Subset):
        data = data.dataset
    names = getattr(data, "classes", None)
    if not isinstance(names, list | tuple) or (y.numel() and len(names) <= int(y.max())):
        return None
    return tuple(map(str, names)) or None


def _reads_each_image_once(loader: DataLoader[Any]) -> bool:
    """Whether one pass of the loader yields each image of its Dataset exactly once.

    If so, nuat can read the Dataset itself, which makes the order of the images reproducible.
    """
    if (
        isinstance(loader.dataset, IterableDataset)
        or type(loader.batch_sampler) is not BatchSampler
    ):
        return False
    each_once = isinstance(loader.sampler, SequentialSampler) or (
        isinstance(loader.sampler, RandomSampler)
        and not loader.sampler.replacement
        # Dataset declares no __len__, but a RandomSampler exists only for one that has it.
        and len(loader.sampler) == len(loader.dataset)  # type: ignore[arg-type]
    )
    return each_once and loader.collate_fn is default_collate


def _read_into_memory(batches: Iterable[Any]) -> InMemoryDataset:
    xs, ys = [], []
    for pair in batches:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"an iterable of images yields a {type(pair).__name__}, not (x, y)")
        x, y = image_to_tensor(pair[0]), to_tensor(pair[1])
        xs.append(x if x.ndim == 4 else x[None])
        ys.append(to_labels(y) if x.ndim == 4 else torch.tensor([to_label(y)]))
    if not xs:
        raise InputError("an iterable of images is empty; was an iterator consumed before?")
    shapes = sorted({tuple(x.shape[1:]) for x in xs})
    if len(shapes) > 1:
        raise InputError(
            f"images have different shapes, such as {shapes[0]} and {shapes[1]}"
            f"{_gray_hint(shapes[0][0], shapes[1][0])}"
        )
    return InMemoryDataset(torch.cat(xs), torch.cat(ys))


def _gray_hint(*channels: int) -> str:
    return '; convert gray images with image.convert("RGB")' if set(channels) == {1, 3} else ""


def _from_torch_dataset(dataset: Any, workers: int) -> InMemoryDataset | TorchDatasetAdapter:
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return InMemoryDataset(*dataset.tensors)
    if not len(dataset):
        raise InputError("the Dataset is empty")
    with seeded(0):
        x, _ = _read_item(dataset, 0)
    if x.ndim != 3:
        raise InputError(f"images of the Dataset are {list(x.shape)}, not [C, H, W]")
    labels = getattr(dataset, "targets", None)
    if labels is None or getattr(dataset, "target_transform", None) or len(labels) != len(dataset):
        with seeded(0):
            labels = [_read_item(dataset, index)[1] for index in range(len(dataset))]
    channels, height, width = x.shape
    try:
        y = to_labels(labels)
    except (InputError, TypeError, ValueError):
        raise InputError(
            f"a label of the Dataset is a {type(labels[0]).__name__}, not a whole number"
        ) from None
    return TorchDatasetAdapter(dataset, y, (channels, height, width), workers)


def _read_item(dataset: Any, index: int) -> tuple[Tensor, int]:
    pair = dataset[index]
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"the Dataset returns a {type(pair).__name__}, not a pair (x, y)")
    try:
        return image_to_tensor(pair[0]), to_label(pair[1])
    except InputError as error:
        raise InputError(f"image {index} of the Dataset: {error}") from None


@dataclass(frozen=True)
class TorchDatasetAdapter(StreamedDataset):
    """A torch Dataset of (x, y).

    Attributes:
        dataset: the torch Dataset.
        y: labels [N] of the images.
        size: channels, height and width of every image.
        workers: worker processes that read ahead.
        device: the device of the batches.
        indices: indices [N] into `dataset` if this is a subset; None for all images.
        classes: names of the classes by label, or None if they have no names.
        labels: for each label in `dataset`, the one in `y`; None if they are the same.
    """

    dataset: Any
    y: Tensor
    size: tuple[int, int, int]
    workers: int | None = 0
    device: torch.device | str = "cpu"
    indices: Tensor | None = None
    classes: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.size

    def check(self, classes: int | None = None) -> None:
        """Check the first images and all labels."""
        check_images(self.read(0, 0, None)[None])
        self.check_byte_range()
        check_labels(self.y, len(self.dataset) if self.indices is None else len(self.y), classes)

    def check_augment(self, augment: Augment) -> None:
        """Refuse `augment.scale`, as the images are already decoded."""
        ImageDataset.check_augment(self, augment)

    def to(self, device: torch.device | str) -> TorchDatasetAdapter:
        """Return the same images on a device."""
        return replace(self, y=self.y.to(device), device=device)

    def with_classes(self, classes: Sequence[str], labels: Sequence[int]) -> TorchDatasetAdapter:
        """Return the same images of other classes: the label k becomes `labels[k]`."""
        renamed = super().with_classes(classes, labels)
        before = range(len(labels)) if self.labels is None else self.labels
        return replace(renamed, labels=tuple(labels[label] for label in before))

    def subset(self, indices: Tensor) -> TorchDatasetAdapter:
        """Return the images at these indices [M]."""
        own_indices = indices.cpu() if self.indices is None else self.indices[indices.cpu()]
        return replace(self, y=self.y[indices.to(self.y.device)], indices=own_indices)

    def read(self, index: int, seed: int, augment: Augment | None) -> Tensor:
        """Return image [C, H, W]; all randomness is a function of (seed, index)."""
        source_index = index if self.indices is None else int(self.indices[index])
        with seeded(derive_seed(seed, "item", index)):
            x, y = _read_item(self.dataset, source_index)
        if self.labels is not None and 0 <= y < len(self.labels):
            y = self.labels[y]
        try:
            check_images(x[None])
        except InputError as error:
            raise InputError(f"image {source_index} of the Dataset: {error}") from None
        if len(x) == 1 and self.shape[0] == 3:  # a gray image among colored ones
            x = x.expand(3, -1, -1)
        if tuple(x.shape) != self.shape or y != int(self.y[index]):
            raise InputError(
                f"image {source_index} of the Dataset is {list(x.shape)} of class {y}, but should "
                f"be {list(self.shape)} of class {int(self.y[index])}, as read before"
                f"{_gray_hint(len(x), self.shape[0])}"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "image", index))
        return augment(x[None], generator)[0] if augment else x
