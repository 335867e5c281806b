"""Images and labels in memory; the three splits of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nuat.data.augment import Augment
from nuat.data.base import ImageDataset, floats, order_of
from nuat.data.sampling import first_of_each_class, stratified_holdout, without
from nuat.data.validation import check_images, check_labels
from nuat.errors import InputError

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class InMemoryDataset(ImageDataset):
    """Images `x` [N, C, H, W], uint8 in 0..255 or float in [0, 1], and their labels `y` [N]."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.y.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
            object.__setattr__(self, "y", self.y.long())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def check(self, classes: int | None = None) -> None:
        """Raise InputError unless images and, if told, labels are what they must be."""
        check_images(self.x)
        if classes is not None:
            check_labels(self.y, len(self.x), classes)

    def to(self, device: torch.device | str) -> InMemoryDataset:
        """The same images on a device."""
        return InMemoryDataset(self.x.to(device), self.y.to(device))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images as float32 in [0, 1] and labels, at these places."""
        indices = indices.to(self.y.device)
        return floats(self.x[indices]), self.y[indices]

    def subset(self, indices: Tensor) -> InMemoryDataset:
        """A part of the images."""
        indices = indices.to(self.y.device)
        return InMemoryDataset(self.x[indices], self.y[indices])

    def shuffled_batches(
        self, size: int, seed: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in batches, in an order and with crops that are a function of the seed.

        `start` leaves out so many batches: the rest are what they would have been.
        """
        self.check_augment(augment or Augment())
        for place, ids in enumerate(order_of(len(self), size, seed)):
            if place >= start:
                ids = ids.to(self.y.device)
                x = self.x.index_select(0, ids)
                own = torch.Generator().manual_seed(seed + 1 + place)
                yield floats(augment(x, own) if augment else x), self.y[ids]


@dataclass(frozen=True)
class Splits:
    """A data set.

    Attributes:
        train, val, test: its images. The weights that are kept are chosen on val, never on test.
        classes: the names of the classes, by label.
        name: what the data set is asked for by.
        notes: what a user should know of how it came to be, a line each.
    """

    train: ImageDataset
    val: ImageDataset
    test: ImageDataset
    classes: tuple[str, ...]
    name: str = "data"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InputError(
                f"{self.name} has {len(self.classes)} class(es) {list(self.classes)}: "
                "a classifier needs two or more"
            )
        for split in NAMES:
            images = self[split]
            _check_split(images, f"{self.name}, {split} split", len(self.classes))
            if images.shape != self.train.shape:
                raise InputError(
                    f"{self.name}: images of the {split} split are {list(images.shape)}, "
                    f"those of the train split {list(self.train.shape)}"
                )

    def __getitem__(self, split: str) -> ImageDataset:
        if split not in NAMES:
            raise InputError(f"unknown split {split!r} (there are: train, val, test)")
        images: ImageDataset = getattr(self, split)
        return images

    def to(self, device: torch.device | str) -> Splits:
        """The same data on a device."""
        return replace(self, **{split: self[split].to(device) for split in NAMES})


def limit_per_class(
    parts: Mapping[str, InMemoryDataset], counts: Mapping[str, int | None], classes: int
) -> dict[str, InMemoryDataset]:
    """Only so many images of each split, the first of each class; None: all."""
    return {
        name: images if (count := counts[name]) is None else _first(name, images, count, classes)
        for name, images in parts.items()
    }


def _first(name: str, images: InMemoryDataset, count: int, classes: int) -> InMemoryDataset:
    least = classes * int(images.y.bincount(minlength=classes).min())
    if not 0 < count <= least or count % classes:
        raise InputError(
            f"{name} is {count}, but must be a multiple of {classes} (classes) up to {least}"
        )
    return images.subset(first_of_each_class(images.y, count // classes))


def fill_missing_splits(
    parts: Mapping[str, ImageDataset],
    data: str = "data",
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> tuple[dict[str, ImageDataset], tuple[str, ...]]:
    """Train, val and test out of what is there, and what was done, in words.

    With train and val alone, val is the test split, as for ImageNet. What is still missing is
    held out of train: these shares of each class, drawn by the seed.
    """
    for name, images in parts.items():
        _check_split(images, f"{data}, {name} split")
    done, notes = dict(parts), []
    if "test" not in done and "val" in done:
        done["test"] = done.pop("val")
        notes.append("there is no test split: the val images are the test split")
    for name, share in (("test", test), ("val", val)):
        if name not in done:
            y = done["train"].y
            places = stratified_holdout(y, share, seed, classes)
            done[name] = done["train"].subset(places)
            done["train"] = done["train"].subset(without(y, places))
            notes.append(
                f"the {name} split is held out of train: {len(places)} of {len(y)} images, "
                f"{share:.0%} of each class, drawn by seed {seed}"
            )
    return done, tuple(notes)


def _check_split(images: ImageDataset, what: str, classes: int | None = None) -> None:
    try:
        if classes is None:
            images.check()
            classes = int(images.y.max()) + 1 if len(images) else 0
        images.check(classes)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
