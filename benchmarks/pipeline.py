"""How fast images come, and how long the training step waits for them.

NUAT_DATA=... OMP_NUM_THREADS=1 python benchmarks/pipeline.py > benchmarks/pipeline.txt

1. CIFAR-10 in memory, batches of 64, pad-crop and flip: ours against Pillow, image by image.
2. The photographs through folder:, RandomResizedCrop to 64 pixels and flip, by number of workers.
3. The share of the time of an epoch of NuAT that passes in waiting for the next batch.
"""

import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image, ImageOps

import nuat
from nuat import Augment
from nuat.data.paths import data_dir

REPEATS = 5
CROPS = Augment(flip=True, scale=(0.25, 1.0))


def pillow(images: list[Image.Image], size: int):
    """The per-image pipeline: expand, crop, mirror, to a tensor, divide, stack."""
    order = random.sample(range(len(images)), len(images))
    for first in range(0, len(order), size):
        batch = []
        for i in order[first : first + size]:
            left, top = random.randint(0, 8), random.randint(0, 8)
            image = ImageOps.expand(images[i], 4).crop((left, top, left + 32, top + 32))
            if random.random() < 0.5:
                image = ImageOps.mirror(image)
            pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
            batch.append(pixels.contiguous().float() / 255)
        yield torch.stack(batch)


def rate(batches, clock=time.perf_counter) -> float:
    """Images a second."""
    begun, count = clock(), 0
    for batch in batches:
        count += len(batch[0]) if isinstance(batch, tuple) else len(batch)
    return count / (clock() - begun)


def in_memory() -> None:
    train = nuat.load_dataset("cifar10(train=10000)").train
    pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in train.x]
    ours, theirs = [], []
    for seed in range(REPEATS):  # in turn and by processor time: other work may run here
        ours.append(rate(train.shuffled_batches(64, seed, Augment(4, True)), time.process_time))
        theirs.append(rate(pillow(pictures, 64), time.process_time))
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"in memory    ours {a:,.0f} images/s, Pillow {b:,.0f} images/s: {a / b:.1f} times")
    turns = [f"{x / y:.1f}" for x, y in zip(ours, theirs, strict=True)]
    print(f"             ratio of each turn: {', '.join(turns)}")


def folder() -> None:
    for workers in (0, 1, 2):
        train = nuat.load_dataset(f"folder:{data_dir()}/photos(size=64, workers={workers})").train
        rates = [rate(train.shuffled_batches(32, seed, CROPS)) for seed in range(3)]
        print(f"folder       {workers} workers: {statistics.median(rates):,.0f} images/s")


@dataclass
class Timed:
    """Images that note how long their user waits for a batch, and how long all takes."""

    images: Any
    waits: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.images, name)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: Any) -> "Timed":
        return self

    def shuffled_inputs(self, *args: Any, **settings: Any):
        begun = time.perf_counter()
        batches = iter(self.images.shuffled_inputs(*args, **settings))
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waits.append(time.perf_counter() - asked)
            if batch is None:
                self.whole.append(time.perf_counter() - begun)
                return
            yield batch


def waiting(title: str, text: str, model: str, augment: Augment) -> None:
    row = replace(nuat.get_recipe("nuat", "cifar10"), model=model, augment=augment).with_epochs(2)
    data = nuat.load_dataset(text)
    timed = Timed(data.train)
    with tempfile.TemporaryDirectory() as out:
        nuat.fit(row, data=replace(data, train=timed), out=Path(out) / "run", device="cpu")
    each = len(timed.waits) // len(timed.whole)
    first = sum(timed.waits[::each])
    whole = sum(timed.whole)
    print(
        f"waiting      {title}: {sum(timed.waits) / whole:.2%} of {whole:.0f} s of training; "
        f"without the first batch of each epoch {(sum(timed.waits) - first) / whole:.2%}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} processors, load {load:.1f}")
    in_memory()
    folder()
    waiting(
        "cifar10, resnet18-nuat(width=8)",
        "cifar10(train=1280, val=100)",
        "resnet18-nuat(width=8)",
        Augment(4, True),
    )
    waiting(
        "photographs at 64, resnet18-nuat(width=8), 2 workers",
        f"folder:{data_dir()}/photos(size=64, workers=2)",
        "resnet18-nuat(width=8)",
        CROPS,
    )
