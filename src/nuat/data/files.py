"""Images in files, read while they are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nuat.data import image_io
from nuat.data.augment import Augment
from nuat.data.loader import StreamedDataset, default_workers
from nuat.data.validation import check_labels
from nuat.errors import InputError
from nuat.rng import derive_seed


@dataclass(frozen=True)
class ImageFiles(StreamedDataset):
    """RGB images of size x size out of `files` of any size, with their labels `y` [N].

    In evaluation: resized, and the middle cut out. In training also cropped and flipped, as the
    recipe's Augment says.
    """

    files: tuple[Path, ...]
    y: Tensor
    size: int
    workers: int | None = None
    device: torch.device | str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.size, self.size

    def check(self, classes: int | None = None) -> None:
        """Raise InputError unless there are images and, if told, fitting labels."""
        if not self.files:
            raise InputError("there are no images: the data, or the part of it asked for, is empty")
        if classes is not None:
            check_labels(self.y, len(self.files), classes)

    def to(self, device: torch.device | str) -> ImageFiles:
        """The same images on a device."""
        return replace(self, y=self.y.to(device), device=device)

    def subset(self, indices: Tensor) -> ImageFiles:
        """A part of the images."""
        files = tuple(self.files[place] for place in indices.tolist())
        return replace(self, files=files, y=self.y[indices.to(self.y.device)])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images, float32 in [0, 1], [B, 3, size, size], and labels [B], at these places."""
        threads = max(1, default_workers() if self.workers is None else self.workers)
        with ThreadPoolExecutor(threads) as pool:
            read = list(pool.map(lambda place: self.read(place, 0, None), indices.tolist()))
        return self._ready(torch.stack(read)), self.y[indices.to(self.y.device)]

    def read(self, place: int, seed: int, augment: Augment | None) -> Tensor:
        """Image [3, size, size], uint8."""
        image = image_io.rgb(self.files[place])
        if augment is None:
            return image_io.tensor(image_io.middle(image, self.size))
        own = torch.Generator().manual_seed(derive_seed(seed, "image", place))
        if augment.scale is None:
            image = image_io.middle(image, self.size)
        else:
            image = image_io.cut(image, image_io.window(*image.size, augment.scale, own), self.size)
        return augment(image_io.tensor(image)[None], own)[0]
