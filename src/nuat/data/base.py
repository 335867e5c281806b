"""What everything else asks of images, wherever they are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nuat.data.augment import Augment
from nuat.errors import InputError


class ImageDataset(ABC):
    """Labelled images that can be had by their places 0..N-1. `y` [N] holds the labels, int64."""

    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.shape[0]

    @abstractmethod
    def check(self, classes: int | None = None) -> None:
        """Raise InputError unless there are images, and, if told, labels from 0 to classes - 1."""

    def check_augment(self, augment: Augment) -> None:
        """Raise InputError if these images cannot be augmented so."""
        if augment.scale is not None:
            raise InputError(
                f"augment.scale is {augment.scale}: crops of random size are made where images are "
                "read from files (folder:PATH); here set --set augment.scale=None"
            )

    @abstractmethod
    def to(self, device: torch.device | str) -> Any:
        """The same images on a device."""

    @abstractmethod
    def subset(self, indices: Tensor) -> Any:
        """A part of the images."""

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images, float32 in [0, 1], [B, C, H, W], and labels [B], at these places."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(ids, images, labels) in batches, in order."""
        for ids in torch.arange(len(self)).split(size):
            yield ids, *self.batch(ids)

    @abstractmethod
    def shuffled_batches(
        self, size: int, seed: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in batches, in an order and with crops that are a function of the seed.

        `start` leaves out so many batches: the rest are what they would have been.
        """


def floats(x: Tensor) -> Tensor:
    """Images as float32 in [0, 1], out of bytes or floats."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def order_of(count: int, size: int, seed: int) -> tuple[Tensor, ...]:
    """The places 0..count-1 in an order drawn by the seed, in batches of `size`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).split(size)
