"""CIFAR-10 and MNIST compared with a second reader that shares no code with nuat.

The constants below were computed from the official files with the standard library and numpy; the
readers below repeat this, byte by byte where the formats allow it.
"""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy
import pytest
import torch

import nuat
from nuat import Augment, InMemoryDataset

KNOWN = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], [5000] * 10, [1000] * 10),
    "mnist": (
        [0.1307],
        [0.3081],
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
}
"""Mean and deviation of the published training set, and images of each class, train and test."""


def second_cifar10(root, which):
    """[(label, 3072 bytes)] in the order of the files."""
    folder = next(Path(root).rglob("cifar-10-batches-py"))
    names = [f"data_batch_{i}" for i in range(1, 6)] if which == "train" else ["test_batch"]
    for name in names:
        with (folder / name).open("rb") as file:
            batch = pickle.load(file, encoding="latin1")
        yield from zip(batch["labels"], (row.tobytes() for row in batch["data"]), strict=True)


def second_mnist(root, which):
    """[(label, 784 bytes)] in the order of the files."""
    folder = next(Path(root).rglob("MNIST/raw"))
    which = {"train": "train", "test": "t10k"}[which]
    with gzip.open(folder / f"{which}-images-idx3-ubyte.gz") as x_file:
        magic, count, height, width = struct.unpack(">4i", x_file.read(16))
        assert (magic, height, width) == (2051, 28, 28)
        with gzip.open(folder / f"{which}-labels-idx1-ubyte.gz") as y_file:
            assert struct.unpack(">2i", y_file.read(8)) == (2049, count)
            for label in y_file.read():
                yield label, x_file.read(784)


SECOND = {"cifar10": (second_cifar10, 3), "mnist": (second_mnist, 1)}


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def readings():
    return {}


def both(real, readings, name):
    """The data set, and the second reader's train and test images, read once."""
    if name not in readings:
        second, _ = SECOND[name]
        readings[name] = (
            nuat.load_dataset(name),
            *(list(second(real, w)) for w in ("train", "test")),
        )
    return readings[name]


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_the_test_split_equals_the_second_reader(real, readings, name):
    data, _, test = both(real, readings, name)
    assert data.test.y.tolist() == [label for label, _ in test]
    assert data.test.y.bincount().tolist() == KNOWN[name][3]
    for place in (0, -1):
        assert digest(data.test.x[place].numpy().tobytes()) == digest(test[place][1])
    whole = hashlib.sha256(b"".join(content for _, content in test)).hexdigest()
    assert digest(data.test.x.numpy().tobytes()) == whole


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_train_and_val_together_are_the_published_training_set(real, readings, name):
    data, train, _ = both(real, readings, name)
    images = [*data.train.x.numpy(), *data.val.x.numpy()]
    labels = data.train.y.tolist() + data.val.y.tolist()
    ours = sorted((label, digest(x.tobytes())) for label, x in zip(labels, images, strict=True))
    assert ours == sorted((label, digest(content)) for label, content in train)
    counts = [labels.count(label) for label in range(10)]
    assert counts == KNOWN[name][2] == [sum(y == k for y, _ in train) for k in range(10)]


def moments(x):
    """Mean and standard deviation of pixels / 255, to four digits, from a histogram."""
    values, counts = numpy.arange(256) / 255, numpy.bincount(x.ravel(), minlength=256)
    mean = (values * counts).sum() / x.size
    deviation = ((values - mean) ** 2 * counts).sum() / x.size
    return round(float(mean), 4), round(float(deviation**0.5), 4)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_mean_and_deviation_to_four_digits(real, readings, name):
    data, train, _ = both(real, readings, name)
    channels = SECOND[name][1]
    rows = numpy.frombuffer(b"".join(content for _, content in train), numpy.uint8)
    rows = rows.reshape(len(train), channels, -1)
    ours = torch.cat([data.train.x, data.val.x]).reshape(len(train), channels, -1).numpy()
    for channel in range(channels):
        found = [moments(x[:, channel]) for x in (rows, ours)]
        expected = KNOWN[name][0][channel], KNOWN[name][1][channel]
        assert found == [expected, expected]


def test_the_val_split_equals_the_published_one(real, readings):
    """In CIFAR-10, val is the first 100 images of each class, and train the rest."""
    data, train, _ = both(real, readings, "cifar10")
    seen, held, rest = [0] * 10, [], []
    for label, content in train:
        seen[label] += 1
        (held if seen[label] <= 100 else rest).append((label, content))
    for images, expected in ((data.val, held), (data.train, rest)):
        assert len(images) == len(expected) and images.y.tolist() == [y for y, _ in expected]
        for place in (0, -1):
            assert digest(images.x[place].numpy().tobytes()) == digest(expected[place][1])
    assert [len(both(real, readings, "mnist")[0][s]) for s in ("train", "val", "test")] == [
        50_000,
        10_000,
        10_000,
    ]


def test_crops_and_flips_equal_pillow(real, readings):
    """The reference uses Pillow, image by image, with the same draws."""
    from PIL import Image, ImageOps

    data, *_ = both(real, readings, "cifar10")
    part = data.train.subset(torch.arange(1000))
    numbered = InMemoryDataset(part.x, torch.arange(1000))
    x, ids = (
        torch.cat(p) for p in zip(*numbered.shuffled_batches(128, 7, Augment(4, True)), strict=True)
    )
    assert sorted(ids.tolist()) == list(range(1000))
    draws = []
    for place, size in enumerate([128] * 7 + [104]):
        own = torch.Generator().manual_seed(7 + 1 + place)
        across, down = (torch.randint(9, (size,), generator=own).tolist() for _ in range(2))
        draws += zip(across, down, torch.rand(size, generator=own).tolist(), strict=True)
    for found, i, (left, top, toss) in zip(x, ids.tolist(), draws, strict=True):
        image = Image.fromarray(part.x[i].permute(1, 2, 0).numpy())
        image = ImageOps.expand(image, 4).crop((left, top, left + 32, top + 32))
        image = ImageOps.mirror(image) if toss < 0.5 else image
        expected = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).float() / 255
        assert torch.equal(found, expected)
