"""Images that are read when they are asked for, by the workers of a DataLoader."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nuat.data.augment import Augment
from nuat.data.base import ImageDataset, floats, order_of
from nuat.errors import InputError


def default_workers() -> int:
    """$NUAT_WORKERS, or one worker for each processor this process may use, 8 at most."""
    text = os.environ.get("NUAT_WORKERS", "")
    if text and not text.isdigit():
        raise InputError(f"NUAT_WORKERS is {text!r}, but must be a whole number from 0 up")
    if text:
        return int(text)
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, mine or 1)


class StreamedDataset(ImageDataset):
    """What such a source shares: order, workers, devices. What is random is keyed to the image.

    An augmented image is a function of (seed, place), whoever reads it: the number of workers and
    a resume change nothing.
    """

    workers: int | None
    device: torch.device | str

    @abstractmethod
    def read(self, place: int, seed: int, augment: Augment | None) -> Tensor:
        """Image [C, H, W], uint8 or float in [0, 1]. Raises InputError that names what is wrong."""

    def check_augment(self, augment: Augment) -> None:
        """Any augmentation will do."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images, float32 in [0, 1], [B, C, H, W], and labels [B], at these places."""
        here = self.to("cpu")
        read = [here.read(place, 0, None) for place in indices.tolist()]
        return self._ready(torch.stack(read)), self.y[indices.to(self.y.device)]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(ids, images, labels) in batches, in order."""
        parts = torch.arange(len(self)).split(size)
        for ids, x in zip(parts, self._stream(parts, _Reader(self.to("cpu"))), strict=True):
            yield ids, x, self.y[ids.to(self.y.device)]

    def shuffled_batches(
        self, size: int, seed: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in batches, in an order and with crops that are a function of the seed.

        `start` leaves out so many batches: the rest are what they would have been.
        """
        parts = order_of(len(self), size, seed)[start:]
        reader = _Reader(self.to("cpu"), seed, augment or Augment())
        for ids, x in zip(parts, self._stream(parts, reader), strict=True):
            yield x, self.y[ids.to(self.y.device)]

    def _stream(self, parts: Sequence[Tensor], reader: _Reader) -> Iterator[Tensor]:
        workers = default_workers() if self.workers is None else self.workers
        loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]
            batch_sampler=[ids.tolist() for ids in parts],
            num_workers=min(workers, len(parts)),
            collate_fn=_stacked,
            pin_memory=torch.device(self.device).type == "cuda",
            generator=torch.Generator(),  # else it would draw from the global one
        )
        for x in loader:
            if isinstance(x, str):
                raise InputError(x)
            yield self._ready(x)

    def _ready(self, x: Tensor) -> Tensor:
        return floats(x.to(self.device, non_blocking=True))


@dataclass(frozen=True)
class _Reader:
    """What travels to a worker, which must not touch the device: a source on the CPU."""

    source: StreamedDataset
    seed: int = 0
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: int) -> Tensor | str:
        try:
            return self.source.read(place, self.seed, self.augment)
        except InputError as error:  # raised in a worker, it would come with a traceback
            return str(error)


def _stacked(read: list[Tensor | str]) -> Tensor | str:
    wrong = [one for one in read if isinstance(one, str)]
    return wrong[0] if wrong else torch.stack(read)  # type: ignore[arg-type]
