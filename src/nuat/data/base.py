"""The interface of a data set of labeled images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Self

import torch
from torch import Tensor

from nuat.data.augment import Augment
from nuat.data.hashing import combine_hashes, hash_images
from nuat.errors import InputError

ALL = slice(None)
"""Selects every image of a batch."""

MAX_HASHED = 1000
"""How many images of a data set that is not in memory enter its content hash."""


class ImageDataset(ABC):
    """Labeled images, addressed by their indices 0..N-1.

    Attributes:
        y: labels [N], int64.
        classes: names of the classes by label, or None if they have no names.
    """

    y: Tensor
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    @property
    def channels(self) -> int:
        """The number of color channels."""
        return self.shape[0]

    @abstractmethod
    def check(self, classes: int | None = None) -> None:
        """Check the images and, if `classes` is given, that labels lie in 0..classes - 1.

        Raises:
            InputError: there are no images, or images or labels are invalid.
        """

    def check_augment(self, augment: Augment) -> None:
        """Raise InputError if these images do not support the augmentation."""
        if augment.scale is not None:
            raise InputError(
                f"augment.scale is {augment.scale}: random resized crops need images that are read "
                "from files (folder:PATH); here use --set augment.scale=None"
            )

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same images on a device."""

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """Return the images at these indices [M], in this order."""

    def with_classes(self, classes: Sequence[str], labels: Sequence[int]) -> Self:
        """Return the same images of other classes: the label k becomes `labels[k]`.

        Subclasses that are no dataclasses with the fields `y` and `classes` override this.
        """
        if not (is_dataclass(self) and {"y", "classes"} <= {field.name for field in fields(self)}):
            raise InputError(
                f"{type(self).__name__} cannot change its labels: define with_classes, or order "
                f"its classes as {', '.join(classes)}"
            )
        y = torch.tensor(labels, device=self.y.device)[self.y]
        return replace(self, y=y, classes=tuple(classes))

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, C, H, W], float32 in [0, 1], and labels [B] at these indices [B]."""

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (indices, images, labels) of all images in order; the last batch may be smaller."""
        for indices in torch.arange(len(self)).split(batch_size):
            yield indices, *self.batch(indices)

    def content_hash(self) -> str:
        """Return a hash of the data: of all labels, and of up to 1,000 images, evenly spread.

        Subclasses whose images are quick to read hash all of them.
        """
        return self._content_hash(max_images=MAX_HASHED)

    def _content_hash(self, max_images: int) -> str:
        step = max(1, -(-len(self) // max_images))
        labels = repr(self.y.tolist()).encode()
        batches = (self.batch(part) for part in torch.arange(0, len(self), step).split(100))
        images = (image for x, y in batches for image in hash_images(x, y))
        return combine_hashes([labels, *images])

    def shuffled_batches(
        self, batch_size: int, seed: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of all images in random order; see `shuffled_inputs`."""
        for inputs in self.shuffled_inputs(batch_size, seed, augment, start):
            yield self.make_batch(inputs, augment)

    @abstractmethod
    def shuffled_inputs(
        self,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        start: int = 0,
        share: slice = ALL,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield what `make_batch` needs for each batch of all images in random order.

        By default these are images and labels. Order and augmentation are functions of `seed`
        alone. The first `start` batches are skipped; the rest are the same as without skipping, so
        that training can resume. `share` selects images of each batch.
        """

    def make_batch(
        self, inputs: Sequence[Tensor], augment: Augment | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (images, labels) from what `shuffled_inputs` yields.

        The work must not depend on the values of the inputs, so that a CUDA graph can repeat it.
        """
        x, y = inputs
        return x, y


def to_float(x: Tensor) -> Tensor:
    """Convert uint8 images in 0..255, or float images in [0, 1], to float32 in [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def shuffled_indices(count: int, batch_size: int, seed: int) -> tuple[Tensor, ...]:
    """Return a random permutation of 0..count-1, split into batches."""
    generator = torch.Generator().manual_seed(seed)
    batches: tuple[Tensor, ...] = torch.randperm(count, generator=generator).split(batch_size)
    return batches
