"""Images that are read when they are needed, by the worker processes of a DataLoader."""

from __future__ import annotations

import atexit
import os
import signal
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nuat.data.augment import Augment
from nuat.data.base import ALL, ImageDataset, shuffled_indices, to_float
from nuat.data.validation import check_byte_range
from nuat.errors import InputError
from nuat.runtime.device import copy_to
from nuat.runtime.signals import ignore_signals
from nuat.runtime.threads import available_cpus

MAX_DEFAULT_WORKERS = 8
NUM_RANGE_PROBES = 16
"""Number of images that are searched for a byte above 1, one after another."""


def default_workers() -> int:
    """Return $NUAT_WORKERS, or one worker per available processor, at most 8."""
    text = os.environ.get("NUAT_WORKERS", "")
    if text and not text.isdigit():
        raise InputError(f"NUAT_WORKERS is {text!r}, but must be a whole number from 0 up")
    return int(text) if text else min(MAX_DEFAULT_WORKERS, available_cpus())


class StreamedDataset(ImageDataset):
    """Images that are read one by one; subclasses define `read`.

    An augmented image is a function of (seed, index), so the number of workers and an interruption
    change nothing.

    Attributes:
        workers: worker processes that read ahead; None for `default_workers()`.
        device: the device of the batches.
    """

    workers: int | None
    device: torch.device | str

    @abstractmethod
    def read(self, index: int, seed: int, augment: Augment | None) -> Tensor:
        """Return image [C, H, W], uint8 or float in [0, 1]. Raises InputError if it is invalid."""

    def check_byte_range(self) -> None:
        """Raise InputError if no byte of the first images is above 1; see `check_byte_range`."""
        images: list[Tensor] = []
        for index in range(min(NUM_RANGE_PROBES, len(self))):
            x = self.to("cpu").read(index, 0, None)
            if x.dtype != torch.uint8 or int(x.max()) > 1:
                return
            images.append(x.flatten())
        check_byte_range(torch.cat(images))

    def check_augment(self, augment: Augment) -> None:
        """Accept every augmentation."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, C, H, W], float32 in [0, 1], and labels [B] at these indices [B]."""
        dataset = self.to("cpu")
        images = [dataset.read(index, 0, None) for index in indices.tolist()]
        return self._to_device(torch.stack(images)), copy_to(self.device, self.y.cpu()[indices])

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (indices, images, labels) of all images in order; the last batch may be smaller."""
        index_batches = torch.arange(len(self)).split(batch_size)
        images, y = self._load(index_batches, _Reader(self.to("cpu"))), self.y.cpu()
        for indices, x in zip(index_batches, images, strict=True):
            yield indices, x, copy_to(self.device, y[indices])

    def shuffled_inputs(
        self,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        start: int = 0,
        share: slice = ALL,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the images and labels of a share of each batch; only these images are read."""
        index_batches = [
            indices[share] for indices in shuffled_indices(len(self), batch_size, seed)[start:]
        ]
        images = self._load(index_batches, _Reader(self.to("cpu"), seed, augment or Augment()))
        y = self.y.cpu()
        for indices, x in zip(index_batches, images, strict=True):
            yield x, copy_to(self.device, y[indices])

    def _load(self, index_batches: Sequence[Tensor], reader: _Reader) -> Iterator[Tensor]:
        workers = default_workers() if self.workers is None else self.workers
        loader: DataLoader[Any] = DataLoader(
            reader,
            batch_sampler=[indices.tolist() for indices in index_batches],
            num_workers=min(workers, len(index_batches)),
            collate_fn=_stack_or_error,
            worker_init_fn=ignore_signals,
            pin_memory=torch.device(self.device).type == "cuda",
            # Without a generator the loader would draw from torch's global one.
            generator=torch.Generator(),
        )
        for x in _with_workers(loader):
            if isinstance(x, str):
                raise InputError(x)
            yield self._to_device(x)

    def _to_device(self, x: Tensor) -> Tensor:
        return to_float(x.to(self.device, non_blocking=True))


_workers: WeakSet[Any] = WeakSet()
"""The worker processes of all loaders."""


def _with_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over the loader, and see to it that its workers end with this process."""
    if not _workers:
        atexit.register(_end_workers)
    others = set(active_children())
    iterator = iter(loader)
    _workers.update(set(active_children()) - others)
    return iterator


def _end_workers() -> None:
    """End workers that were not shut down, such as those that a traceback refers to.

    At its exit Python sends them SIGTERM, which they ignore, and waits for them.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report them as failed
    for worker in _workers:
        if worker.is_alive():
            worker.kill()


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | str]):
    """The part that is sent to the worker processes: a data set on the CPU, as CUDA cannot fork."""

    dataset: StreamedDataset
    seed: int = 0
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor | str:
        # An exception raised in a worker reaches the user with a traceback, a text does not.
        try:
            return self.dataset.read(index, self.seed, self.augment)
        except InputError as error:
            return str(error)


def _stack_or_error(images: list[Tensor | str]) -> Tensor | str:
    errors = [image for image in images if isinstance(image, str)]
    return errors[0] if errors else torch.stack([x for x in images if isinstance(x, Tensor)])
