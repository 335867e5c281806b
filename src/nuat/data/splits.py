"""Images and labels in memory, and how they come in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nuat.errors import InputError
from nuat.network import check_images, check_labels


@dataclass(frozen=True)
class Augment:
    """Pad by `pad` zeros and crop at random; flip left and right by the toss of a coin."""

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise InputError(f"pad is {self.pad!r}, but must be a whole number from 0 up")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images [B, C, H, W], each on its own."""
        size = len(x)
        if self.pad:
            across, down = (
                _sent(torch.randint(2 * self.pad + 1, (size,), generator=generator), x)
                for _ in range(2)
            )
            x = _crop(torch.nn.functional.pad(x, [self.pad] * 4), down, across, x.shape[2:])
        if self.flip:
            flipped = _sent(torch.rand(size, generator=generator), x) < 0.5
            x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        return x


def _sent(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers from a CPU to where `x` is; a GPU's queue is not waited for."""
    return numbers.pin_memory().to(x.device, non_blocking=True) if x.is_cuda else numbers


def _crop(x: Tensor, down: Tensor, across: Tensor, size: torch.Size) -> Tensor:
    """x[b, :, down[b] : down[b] + h, across[b] : across[b] + w] for every b."""
    rows = down[:, None] + torch.arange(size[0], device=x.device)
    columns = across[:, None] + torch.arange(size[1], device=x.device)
    image = torch.arange(len(x), device=x.device)
    picked = x.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Images:
    """Images `x` [N, C, H, W], uint8 in 0..255 or float in [0, 1], and their labels `y` [N]."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.y.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
            object.__setattr__(self, "y", self.y.long())

    def __len__(self) -> int:
        return len(self.y)

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.x.shape[1]

    def to(self, device: torch.device | str) -> Images:
        """The same images on a device."""
        return Images(self.x.to(device), self.y.to(device))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images as float32 in [0, 1] and labels, at these places."""
        indices = indices.to(self.y.device)
        x = self.x[indices]
        return (x.float() / 255 if x.dtype == torch.uint8 else x.float()), self.y[indices]

    def take(self, indices: Tensor) -> Images:
        """A part of the images."""
        indices = indices.to(self.y.device)
        return Images(self.x[indices], self.y[indices])

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(ids, images, labels) in batches, in order."""
        for ids in torch.arange(len(self)).split(size):
            yield ids, *self.batch(ids)

    def shuffled(
        self, size: int, seed: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in batches, in an order and with crops that are a function of the seed.

        `start` leaves out so many batches: the rest are what they would have been.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        order = order.to(self.y.device)
        for place, ids in enumerate(order.split(size)):
            if place >= start:
                x, y = self.batch(ids)
                own = torch.Generator().manual_seed(seed + 1 + place)
                yield (augment(x, own) if augment else x), y


@dataclass(frozen=True)
class Splits:
    """A data set: train, val (held out of the published training set), test, and class names."""

    train: Images
    val: Images
    test: Images
    classes: tuple[str, ...]
    name: str = "data"

    def __post_init__(self) -> None:
        for split in ("train", "val", "test"):
            images = self[split]
            try:
                check_images(images.x)
                check_labels(images.y, len(images.x), len(self.classes))
            except InputError as error:
                raise InputError(f"{self.name}, {split} split: {error}") from None
            if images.x.shape[1:] != self.train.x.shape[1:]:
                raise InputError(
                    f"{self.name}: images of the {split} split are {list(images.x.shape[1:])}, "
                    f"those of the train split {list(self.train.x.shape[1:])}"
                )

    def __getitem__(self, split: str) -> Images:
        if split not in ("train", "val", "test"):
            raise InputError(f"unknown split {split!r} (there are: train, val, test)")
        images: Images = getattr(self, split)
        return images

    def to(self, device: torch.device | str) -> Splits:
        """The same data on a device."""
        parts = {split: self[split].to(device) for split in ("train", "val", "test")}
        return replace(self, **parts)


def first_of_each_class(y: Tensor, count: int) -> Tensor:
    """The places of the first `count` images of each class, in order."""
    places = [(y == label).nonzero()[:count, 0] for label in y.unique()]
    return torch.cat(places).sort().values


def class_balanced(y: Tensor, count: int, seed: int) -> Tensor:
    """`count` places, as evenly over the classes as they allow, drawn by the seed; in order."""
    if not 0 < count <= len(y):
        raise InputError(f"{count} samples were asked for, but there are {len(y)} images")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    labels = y.cpu()[shuffled]
    turn = torch.empty_like(labels)
    for label in labels.unique():
        mine = labels == label
        turn[mine] = torch.arange(int(mine.sum()))
    return shuffled[turn.argsort(stable=True)][:count].sort().values
