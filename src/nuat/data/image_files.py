"""A data set of image files, read when they are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nuat.data import image_io
from nuat.data.augment import Augment
from nuat.data.base import MAX_HASHED
from nuat.data.hashing import combine_hashes
from nuat.data.loader import StreamedDataset, default_workers
from nuat.data.validation import NO_IMAGES, check_labels
from nuat.errors import InputError
from nuat.rng import derive_seed


@dataclass(frozen=True)
class ImageFileDataset(StreamedDataset):
    """RGB images [3, size, size] from files of any size, with their labels.

    In evaluation images are resized and center-cropped; in training they are cropped and flipped
    as the recipe's Augment says.
    """

    files: tuple[Path, ...]
    y: Tensor
    size: int
    workers: int | None = None
    device: torch.device | str = "cpu"
    classes: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return 3, self.size, self.size

    def check(self, classes: int | None = None) -> None:
        """Check that there are images and, if `classes` is given, their labels."""
        if not self.files:
            raise InputError(NO_IMAGES)
        check_labels(self.y, len(self.files), classes)
        self.check_byte_range()

    def to(self, device: torch.device | str) -> ImageFileDataset:
        """Return the same images on a device."""
        return replace(self, y=self.y.to(device), device=device)

    def content_hash(self) -> str:
        """Return a hash of the names, sizes and labels of all files, and of up to 1,000 of them."""
        pairs = zip(self.files, self.y.tolist(), strict=True)
        names = [(f.parent.name, f.name, f.stat().st_size, label) for f, label in pairs]
        step = max(1, -(-len(self) // MAX_HASHED))
        content = (file.read_bytes() for file in self.files[::step])
        return combine_hashes([repr((self.size, names)).encode(), *content])

    def subset(self, indices: Tensor) -> ImageFileDataset:
        """Return the images at these indices [M]."""
        files = tuple(self.files[index] for index in indices.tolist())
        return replace(self, files=files, y=self.y[indices.to(self.y.device)])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, 3, size, size], float32 in [0, 1], and labels [B]."""
        # Pillow releases the GIL while it decodes, so threads do here without worker processes.
        threads = max(1, default_workers() if self.workers is None else self.workers)
        with ThreadPoolExecutor(threads) as pool:
            images = list(pool.map(lambda index: self.read(index, 0, None), indices.tolist()))
        return self._to_device(torch.stack(images)), self.y[indices.to(self.y.device)]

    def read(self, index: int, seed: int, augment: Augment | None) -> Tensor:
        """Return image [3, size, size], uint8."""
        image = image_io.read_rgb(self.files[index])
        if augment is None:
            return image_io.to_tensor(image_io.resize_center_crop(image, self.size))
        generator = torch.Generator().manual_seed(derive_seed(seed, "image", index))
        if augment.scale is None:
            image = image_io.resize_center_crop(image, self.size)
        else:
            box = image_io.random_resized_crop_box(*image.size, augment.scale, generator)
            image = image_io.crop_resize(image, box, self.size)
        return augment(image_io.to_tensor(image)[None], generator)[0]
