"""The published data sets, batches, augmentation, sampling and splits."""

import gzip
import hashlib
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy
import pytest
import torch

import nuat
from nuat import Augment, InMemoryDataset, InputError, Splits
from nuat.data import cifar as cifar_module
from nuat.data import class_balanced
from nuat.data import mnist as mnist_module
from nuat.data.sampling import first_of_each_class

# digits


def test_digits_are_fixed_disjoint_and_in_range():
    digits = nuat.load_dataset("digits")
    assert [len(digits[name]) for name in ("train", "val", "test")] == [1197, 200, 400]
    assert digits.classes == tuple("0123456789") and digits.name == "digits"
    for name in ("train", "val", "test"):
        images = digits[name]
        x, y = images.batch(torch.arange(len(images)))
        assert x.shape[1:] == (1, 8, 8) and x.dtype == torch.float32 and y.dtype == torch.int64
        assert float(x.min()) == 0 and float(x.max()) == 1
        assert (x * 16).eq((x * 16).round()).all(), "the published 0..16, and nothing else"
        assert y.bincount(minlength=10).min() >= len(images) // 16, "every class is there"
    again = nuat.load_dataset("digits")
    for name in ("train", "val", "test"):
        assert torch.equal(digits[name].x, again[name].x)
        assert torch.equal(digits[name].y, again[name].y)


def test_digits_contain_every_published_image_once():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pairs = zip(bunch.images, bunch.target.tolist(), strict=True)
    published = [(*image.ravel().tolist(), label) for image, label in pairs]
    digits = nuat.load_dataset("digits")
    found = [
        (*(image.flatten() * 16).tolist(), label)
        for name in ("train", "val", "test")
        for image, label in zip(digits[name].x, digits[name].y.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(published)
    nine = [tuple(image) for image in (bunch.images[:9].reshape(9, -1)).tolist()]
    assert tuple((digits.test.x[0] * 16).flatten().tolist()) == nine[0]
    assert tuple((digits.test.x[1] * 16).flatten().tolist()) == nine[1]
    assert tuple((digits.val.x[0] * 16).flatten().tolist()) == nine[2]
    assert tuple((digits.train.x[0] * 16).flatten().tolist()) == nine[3]


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"nuat\[demo\]"):
        nuat.load_dataset("digits")


# augmentation


def one_by_one(x, pad, flip, seed):
    """A plain reference: image by image, with the same draws."""
    generator = torch.Generator().manual_seed(seed)
    size, (height, width) = len(x), x.shape[2:]
    out = [image.clone() for image in x]
    if pad:
        across = torch.randint(2 * pad + 1, (size,), generator=generator).tolist()
        down = torch.randint(2 * pad + 1, (size,), generator=generator).tolist()
        for b in range(size):
            padded = torch.zeros(x.shape[1], height + 2 * pad, width + 2 * pad)
            padded[:, pad : pad + height, pad : pad + width] = x[b]
            out[b] = padded[:, down[b] : down[b] + height, across[b] : across[b] + width]
    if flip:
        tossed = torch.rand(size, generator=generator).tolist()
        out = [o.flip(2) if toss < 0.5 else o for o, toss in zip(out, tossed, strict=True)]
    return torch.stack(out)


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, False), (0, True), (4, True), (1, True)])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_crops_and_flips_equal_the_reference(pad, flip, shape):
    x = torch.rand(40, *shape)
    kept = x.clone()
    found = Augment(pad, flip)(x, torch.Generator().manual_seed(3))
    assert found.shape == x.shape and torch.equal(x, kept)
    assert torch.equal(found, one_by_one(x, pad, flip, 3))


def test_every_crop_and_both_flips_occur():
    x = torch.zeros(3000, 1, 5, 5)
    x[:, 0, 2, 2] = 1.0
    x[:, 0, 2, 1] = 0.5
    found = Augment(pad=2, flip=True)(x, torch.Generator().manual_seed(0))
    places = (found[:, 0] == 1).nonzero()[:, 1:]
    counts = (places[:, 0] * 5 + places[:, 1]).bincount(minlength=25)
    assert (counts > 60).all() and len(places) == 3000
    behind = [bool(((row[1:] == 0.5) & (row[:-1] == 1)).any()) for row in found.amax(2)[:, 0]]
    assert 1000 < sum(behind) < 1500, "the half-bright pixel is on the other side, if it is there"
    assert Augment()(x, torch.Generator()) is x


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_reflection_padding_equals_torchs_and_draws_the_same_crops(shape, dtype):
    x = (torch.rand(40, *shape) * 255).to(dtype)
    kept = x.clone()
    for pad in (1, 4):
        padded = torch.nn.functional.pad(x.float(), [pad] * 4, mode="reflect").to(dtype)
        found = Augment(pad, pad_mode="reflect")(x, torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        left, top = (torch.randint(2 * pad + 1, (40,), generator=generator) for _ in range(2))
        h, w = shape[1:]
        wanted = [p[:, t : t + h, s : s + w] for p, t, s in zip(padded, top, left, strict=True)]
        assert torch.equal(found, torch.stack(wanted)) and torch.equal(x, kept)


def test_a_padding_mode_that_cannot_be_used_is_refused():
    with pytest.raises(InputError, match=r"unknown pad_mode 'edge'.*constant, reflect"):
        Augment(pad=1, pad_mode="edge")
    with pytest.raises(InputError, match=r"pad is 5.*these have 5"):
        Augment(pad=5, pad_mode="reflect")(torch.rand(2, 1, 5, 9), torch.Generator())


def test_a_negative_padding_is_refused():
    with pytest.raises(InputError, match="pad"):
        Augment(pad=-1)


# batches


def images(count=23, classes=5):
    x = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4) / count
    return InMemoryDataset(x, torch.arange(count) % classes)


def whole(batches):
    return [(x.clone(), y.clone()) for x, y in batches]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


def test_shuffled_batches_are_a_permutation():
    data = images()
    batches = whole(data.shuffled_batches(5, seed=1))
    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    ids = (torch.cat([x for x, _ in batches])[:, 0, 0, 0] * 23).round().long()
    assert sorted(ids.tolist()) == list(range(23)) and ids.tolist() != list(range(23))
    assert torch.equal(torch.cat([y for _, y in batches]), ids % 5), "each with its own label"


def test_shuffled_batches_are_a_function_of_the_seed():
    data, augment = images(), Augment(1, True)
    one = whole(data.shuffled_batches(5, 1, augment))
    torch.manual_seed(99)
    assert same(one, whole(data.shuffled_batches(5, 1, augment)))
    assert not same(one, whole(data.shuffled_batches(5, 2, augment)))
    assert torch.initial_seed() == 99


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5, 9])
def test_start_does_not_change_the_later_batches(start):
    data, augment = images(), Augment(2, True)
    rest = whole(data.shuffled_batches(5, 7, augment, start=start))
    assert same(rest, whole(data.shuffled_batches(5, 7, augment))[start:])


def test_two_batches_have_different_crops():
    data = InMemoryDataset(
        torch.rand(1, 1, 6, 6).expand(40, -1, -1, -1), torch.zeros(40, dtype=torch.long)
    )
    one, other = (x for x, _ in data.shuffled_batches(20, 1, Augment(2, True)))
    assert not torch.equal(one, other)


def test_batches_in_order_and_uint8():
    pixels = torch.arange(6 * 4, dtype=torch.uint8).reshape(6, 1, 2, 2)
    data = InMemoryDataset(pixels, torch.arange(6, dtype=torch.uint8))
    parts = list(data.batches(4))
    assert [ids.tolist() for ids, _, _ in parts] == [[0, 1, 2, 3], [4, 5]]
    x = torch.cat([x for _, x, _ in parts])
    assert x.dtype == torch.float32 and torch.equal(x, pixels.float() / 255)
    assert torch.cat([y for *_, y in parts]).tolist() == list(range(6))
    assert data.y.dtype == torch.int64 and len(data) == 6 and data.channels == 1
    part = data.subset(torch.tensor([5, 2]))
    assert torch.equal(part.x, pixels[[5, 2]]) and part.y.tolist() == [5, 2]


# sampling


def test_class_balanced():
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 3)
    for count in (1, 2, 3, 9, 10, 30, 63, 83):
        ids = class_balanced(y, count, seed=4)
        assert len(ids) == count and ids.tolist() == sorted(set(ids.tolist()))
        found = y[ids].bincount(minlength=3).tolist()
        full = {label: int((y == label).sum()) for label in range(3)}
        most = max(found)
        assert all(n >= most - 1 or n == full[label] for label, n in enumerate(found)), found
    assert torch.equal(class_balanced(y, 9, 4), class_balanced(y, 9, 4))
    assert not torch.equal(class_balanced(y, 9, 4), class_balanced(y, 9, 5))


def test_class_balanced_draws_from_the_whole_class():
    y = torch.arange(100) % 2
    drawn = torch.cat([class_balanced(y, 10, seed) for seed in range(60)]).bincount(minlength=100)
    assert (drawn > 0).all()


@pytest.mark.parametrize("count", [0, -1, 11])
def test_class_balanced_refuses_an_impossible_count(count):
    with pytest.raises(InputError, match=f"{count} samples.*10 images"):
        class_balanced(torch.zeros(10), count, 0)


def test_first_of_each_class():
    y = torch.tensor([3, 1, 1, 3, 0, 1, 3, 3])
    assert first_of_each_class(y, 2).tolist() == [0, 1, 2, 3, 4]
    assert first_of_each_class(y, 1).tolist() == [0, 1, 4]
    assert first_of_each_class(y, 99).tolist() == list(range(8))


# splits


def splits(**changes):
    parts = {name: images(10) for name in ("train", "val", "test")} | changes
    return Splits(**parts, classes=tuple("abcde"), name="mine")


def test_splits_by_name():
    data = splits(val=images(7))
    assert (len(data["train"]), len(data["val"])) == (10, 7)
    with pytest.raises(InputError, match=r"unknown split 'valid'.*train, val, test"):
        data["valid"]
    moved = data.to("cpu")
    assert moved.name == "mine" and torch.equal(moved.val.x, data.val.x)


X = torch.rand(10, 1, 4, 4)
Y = torch.arange(10) % 5


@pytest.mark.parametrize("name", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y + 1, r"labels run from 1 to 5.*0 to 4.*count from 1\?"),
        (X, Y - 1, "labels run from -1 to 3"),
        (X * 255, Y, r"\[0, 1\].*divide by 255\?"),
        (X * 2 - 1, Y, r"\[0, 1\].*normalized\?"),
        (X[:0], Y[:0], "there are no images"),
        (X, Y[:9], r"labels are .*\[9\], not integers \[10\]"),
        (X, Y + 0.5, "not all of them are whole numbers"),
        (X, torch.nn.functional.one_hot(Y), r"not integers \[10\]; of one-hot.*argmax"),
        (X[:, 0], Y, r"images are .*\[10, 4, 4\]"),
        (X.long(), Y, "int64"),
        (X / 0, Y, "inf"),
        (X * float("nan"), Y, "nan"),
    ],
)
def test_an_invalid_split_is_named(name, x, y, message):
    with pytest.raises(InputError, match=f"mine, {name} split: .*{message}"):
        splits(**{name: InMemoryDataset(x, y)})


def test_images_of_two_shapes_are_refused():
    """Otherwise the model would refuse the val images only after the first epoch."""
    with pytest.raises(InputError, match=r"val|channels|shape"):
        splits(val=InMemoryDataset(torch.rand(10, 3, 4, 4), Y))


def test_unknown_data_and_unknown_settings():
    with pytest.raises(InputError, match=r"unknown data set 'digit'; did you mean 'digits'\?"):
        nuat.load_dataset("digit")
    with pytest.raises(InputError, match=r"cannot read the data 'digits\(size=3\)'.*size"):
        nuat.load_dataset("digits(size=3)")


def test_a_data_set_has_the_text_that_loaded_it_as_name(monkeypatch):
    monkeypatch.setitem(nuat.data.dataset_registry, "mine", lambda size=1: splits())
    assert nuat.load_dataset("mine(size=3)").name == "mine(size=3)"


# synthetic files in the official layout


class Code:
    """When unpickled, it writes a file to the working directory."""

    def __reduce__(self):
        return exec, ("open('mark', 'w').write('x')",)


def checksums(folder):
    return {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}


LABELS = numpy.random.RandomState(5).randint(10, size=5200).tolist()


def batch(count, first):
    """A CIFAR-10 batch: image i is filled with its number modulo 251."""
    numbers = numpy.arange(first, first + count)
    data = numpy.repeat((numbers % 251).astype(numpy.uint8)[:, None], 3072, axis=1)
    data[:, 0], data[:, 1024], data[:, 2048 + 33] = 1, 2, 3  # red, green at (0, 0), blue at (1, 1)
    labels = LABELS[first : first + count]
    return {b"batch_label": b"made up", b"labels": labels, b"data": data}


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """5 x 600 + 200 images; 100 of each of 10 classes are held out."""
    folder = tmp_path / "root" / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(batch(600, 600 * (i - 1))))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(200, 5000)))
    monkeypatch.setattr(cifar_module, "CIFAR10_MD5", checksums(folder))
    monkeypatch.setenv("NUAT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return folder


def numbers(images):
    """The numbers of the images, modulo 251."""
    return images.x[:, 1, 5, 5].tolist()


def test_cifar10_is_read_and_split(cifar):
    data = nuat.load_dataset("cifar10")
    assert [len(data[name]) for name in ("train", "val", "test")] == [2000, 1000, 200]
    assert data.train.x.dtype == torch.uint8 and data.train.x.shape[1:] == (3, 32, 32)
    held, seen = [], dict.fromkeys(range(10), 0)
    for n, label in enumerate(LABELS[:3000]):
        seen[label] += 1
        if seen[label] <= 100:
            held.append(n)
    rest = [n for n in range(3000) if n not in set(held)]
    for images, expected in ((data.val, held), (data.train, rest)):
        assert numbers(images) == [n % 251 for n in expected]
        assert images.y.tolist() == [LABELS[n] for n in expected]
    assert numbers(data.test) == [n % 251 for n in range(5000, 5200)]
    assert data.test.y.tolist() == LABELS[5000:]
    assert data.val.y.bincount().tolist() == [100] * 10
    x = data.test.x[0]
    assert (x[0, 0, 0], x[1, 0, 0], x[2, 1, 1]) == (1, 2, 3), "planes of red, green, blue, by rows"
    assert data.classes[0] == "airplane" and data.classes[9] == "truck" and len(data.classes) == 10


def test_part_of_cifar10(cifar):
    whole, part = nuat.load_dataset("cifar10"), nuat.load_dataset("cifar10(train=100, test=50)")
    assert [len(part[name]) for name in ("train", "val", "test")] == [100, 1000, 50]
    assert part.train.y.bincount().tolist() == [10] * 10
    first = first_of_each_class(whole.train.y, 10)
    assert torch.equal(part.train.x, whole.train.x[first])
    assert torch.equal(part.val.x, whole.val.x)
    assert part.name == "cifar10(train=100, test=50)"


@pytest.mark.parametrize("setting", ["train=0", "train=-10", "test=-10", "train=15", "train=5000"])
def test_an_impossible_part_of_cifar10_is_refused(cifar, setting):
    """15 is not a multiple of 10; as a slice, -10 would keep all but the last images."""
    with pytest.raises(InputError, match=r"train|test"):
        nuat.load_dataset(f"cifar10({setting})")


def test_cifar10_is_found_in_either_folder(cifar, tmp_path, monkeypatch):
    cifar.rename(tmp_path / "root" / "cifar-10-batches-py")
    assert len(nuat.load_dataset("cifar10").test) == 200
    monkeypatch.delenv("NUAT_DATA")
    (tmp_path / "root").rename(tmp_path / "data")
    assert len(nuat.load_dataset("cifar10").test) == 200


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_modified_cifar10_file_is_never_unpickled(cifar, tmp_path, name):
    (cifar / name).write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputError, match=f"{name} is not the official file.*MD5"):
        nuat.load_dataset("cifar10")
    assert not (tmp_path / "mark").exists()
    pickle.loads((cifar / name).read_bytes())
    assert (tmp_path / "mark").exists(), "the file does hold code that runs"


@pytest.mark.parametrize("name", ["data_batch_5", "test_batch"])
def test_a_missing_cifar10_file_is_named(cifar, name):
    (cifar / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing.*is incomplete"):
        nuat.load_dataset("cifar10")


def test_the_md5_sums_of_the_official_files():
    """They are published on the CIFAR-10 page and in torchvision.datasets."""
    assert cifar_module.CIFAR10_MD5["data_batch_1"] == "c99cafc152244af753f735de768cd75f"
    assert cifar_module.CIFAR10_MD5["test_batch"] == "40351d587109b95175f43aff81a1287e"
    assert mnist_module.MNIST_MD5["t10k-labels-idx1-ubyte.gz"] == "ec29112dd5afa0611ce80d1b7f02629c"
    for sums, count in ((cifar_module.CIFAR10_MD5, 6), (mnist_module.MNIST_MD5, 4)):
        assert len(set(sums.values())) == count and all(len(text) == 32 for text in sums.values())


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """3,000 + 200 images of 100 classes; 10 of each class are held out."""
    folder = tmp_path / "root" / "cifar-100-python"
    folder.mkdir(parents=True)
    labels = [i * 7 % 100 for i in range(3200)]
    for name, first, count in (("train", 0, 3000), ("test", 3000, 200)):
        made = batch(count, first) | {b"fine_labels": labels[first : first + count]}
        del made[b"labels"]
        (folder / name).write_bytes(pickle.dumps(made))
    names = [f"class {i}".encode() for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}))
    monkeypatch.setattr(cifar_module, "CIFAR100_MD5", checksums(folder))
    monkeypatch.setenv("NUAT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_cifar100_is_read_and_split(cifar100):
    data = nuat.load_dataset("cifar100")
    assert [len(data[name]) for name in ("train", "val", "test")] == [2000, 1000, 200]
    assert data.classes[42] == "class 42" and len(data.classes) == 100
    assert numbers(data.val) == [n % 251 for n in range(1000)], "the first 10 of each class"
    assert data.train.y.tolist() == [n * 7 % 100 for n in range(1000, 3000)]
    assert data.test.x.shape == (200, 3, 32, 32) and data.test.x.dtype == torch.uint8


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_modified_cifar100_file_is_never_unpickled(cifar100, tmp_path, name):
    (cifar100 / name).write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputError, match=f"{name} is not the official file.*MD5"):
        nuat.load_dataset("cifar100")
    assert not (tmp_path / "mark").exists()


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory):
    """60,000 + 10,000 images; the first three pixels hold the number of an image."""
    folder = tmp_path_factory.mktemp("root") / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for which, count in (("train", 60_000), ("t10k", 10_000)):
        ids = numpy.arange(count)
        x = numpy.zeros((count, 784), numpy.uint8)
        x[:, 0], x[:, 1], x[:, 28] = ids % 256, ids // 256, 9
        labels = (ids % 10).astype(numpy.uint8)
        kinds = (
            ("images-idx3", struct.pack(">4i", 2051, count, 28, 28), x.tobytes()),
            ("labels-idx1", struct.pack(">2i", 2049, count), labels.tobytes()),
        )
        for kind, header, body in kinds:
            content = gzip.compress(header + body, compresslevel=1)
            (folder / f"{which}-{kind}-ubyte.gz").write_bytes(content)
    return folder


@pytest.fixture
def mnist(mnist_files, monkeypatch):
    monkeypatch.setattr(mnist_module, "MNIST_MD5", checksums(mnist_files))
    monkeypatch.setenv("NUAT_DATA", str(mnist_files.parents[2]))
    return mnist_files


def test_mnist_is_read_and_split(mnist):
    data = nuat.load_dataset("mnist")
    assert [len(data[name]) for name in ("train", "val", "test")] == [50_000, 10_000, 10_000]
    assert data.train.x.shape[1:] == (1, 28, 28) and data.train.x.dtype == torch.uint8
    ids = {
        name: data[name].x[:, 0, 0, 0].long() + 256 * data[name].x[:, 0, 0, 1].long()
        for name in ("train", "val", "test")
    }
    for name, found in ids.items():
        assert torch.equal(data[name].y, found % 10), "each with its own label"
        assert (data[name].x[:, 0, 1, 0] == 9).all(), "by rows"
    assert torch.equal(ids["test"], torch.arange(10_000))
    both = torch.cat([ids["train"], ids["val"]])
    assert torch.equal(both.sort().values, torch.arange(60_000)), "all of them, each once"
    order = numpy.random.RandomState(0).permutation(60_000)
    assert both.tolist() == order.tolist()


def test_part_of_mnist(mnist):
    whole, part = nuat.load_dataset("mnist"), nuat.load_dataset("mnist(train=200, val=50)")
    assert [len(part[name]) for name in ("train", "val", "test")] == [200, 50, 10_000]
    assert torch.equal(part.train.x, whole.train.x[first_of_each_class(whole.train.y, 20)])
    with pytest.raises(InputError, match="train is 50000, but must be a multiple of 10"):
        nuat.load_dataset("mnist(train=50000)")


def test_a_missing_or_modified_mnist_file_is_refused(mnist, tmp_path, monkeypatch):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in mnist.iterdir():
        os.link(file, folder / file.name)
    monkeypatch.setenv("NUAT_DATA", str(tmp_path))
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"t10k-labels.*is missing.*is incomplete"):
        nuat.load_dataset("mnist")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(10_008)))
    with pytest.raises(InputError, match=r"t10k-labels.*is not the official file.*MD5"):
        nuat.load_dataset("mnist")


@pytest.mark.parametrize(
    ("name", "inside"), [("cifar10", "cifar-10-batches-py"), ("mnist", "MNIST/raw")]
)
def test_the_error_for_a_missing_folder_lists_the_places(tmp_path, monkeypatch, name, inside):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUAT_DATA", raising=False)
    with pytest.raises(InputError) as error:
        nuat.load_dataset(name)
    text = str(error.value)
    assert str(Path("data") / name / inside) in text and str(Path("data") / inside) in text
    assert "NUAT_DATA" in text
    monkeypatch.setenv("NUAT_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere") as error:
        nuat.load_dataset(name)
    assert f"data/{name}" not in str(error.value)
