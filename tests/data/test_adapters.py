"""Data from Python objects, archives and functions of the user."""

import random
import subprocess
import sys

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import nuat
from nuat import Augment, InMemoryDataset, InputError, Linf
from nuat.data import as_dataset, as_splits

N = 30
X = torch.rand(N, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(N) % 3


def row(**changes):
    return nuat.Recipe(
        name="normal",
        method=nuat.Standard(),
        data="digits",
        model="small-cnn(width=2)",
        epochs=1,
        batch_size=8,
        **changes,
    )


class Plain(Dataset):
    """A map-style data set; with `jitter` each read draws from every global generator."""

    def __init__(self, jitter=False):
        self.jitter = jitter

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not self.jitter:
            return X[i], int(Y[i])
        drawn = float(torch.rand(1)) + random.random() + float(numpy.random.rand())
        return X[i] * drawn / 3, int(Y[i])


class Endless(IterableDataset):
    def __iter__(self):
        return iter((X[i], Y[i]) for i in range(N))


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


# images


def mixed(batch):
    x, y = torch.utils.data.default_collate(batch)
    return x.flip(3), y


ONLY_THE_LAST = torch.utils.data.SubsetRandomSampler([N - 1])


@pytest.mark.parametrize(
    "sampler",
    [ONLY_THE_LAST, torch.utils.data.WeightedRandomSampler([0.0] * (N - 1) + [1.0], 1)],
)
def test_a_custom_sampler_is_used(sampler):
    images = as_dataset(DataLoader(Plain(), batch_size=2, sampler=sampler))
    assert torch.equal(images.batch(torch.arange(1))[0], X[-1:]) and len(images) == 1


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        [X, Y],
        (X.numpy(), Y.numpy()),
        InMemoryDataset(X, Y),
        TensorDataset(X, Y),
        Plain(),
        DataLoader(Plain(), batch_size=7),
        DataLoader(Plain(), batch_size=7, shuffle=True, num_workers=1),
        DataLoader(TensorDataset(X.flip(3), Y), batch_size=7, collate_fn=mixed),
        DataLoader(Endless(), batch_size=4),
        Endless(),
        [(X[:20], Y[:20]), (X[20:], Y[20:])],
        [(X[i], int(Y[i])) for i in range(N)],
        ((X[i : i + 4], Y[i : i + 4]) for i in range(0, N, 4)),
    ],
)
def test_every_accepted_kind_of_images(given):
    images = as_dataset(given)
    assert len(images) == N and images.channels == 3 and images.shape == (3, 6, 6)
    x, y = images.batch(torch.arange(N))
    assert torch.equal(x, X) and torch.equal(y, Y) and torch.equal(images.y, Y)
    assert y.dtype == torch.int64 and x.dtype == torch.float32
    batches = list(images.shuffled_batches(8, seed=3, augment=Augment(flip=True)))
    assert [len(y) for _, y in batches] == [8, 8, 8, 6]
    assert same(batches, list(images.shuffled_batches(8, seed=3, augment=Augment(flip=True))))
    assert same(batches[2:], list(images.shuffled_batches(8, 3, Augment(flip=True), start=2)))
    part = images.subset(torch.tensor([4, 9])).subset(torch.tensor([1]))
    assert torch.equal(part.batch(torch.tensor([0]))[0], X[9:10]) and part.y.tolist() == [int(Y[9])]


def test_random_transforms_are_seeded_per_image():
    """Draws from torch, numpy and random are seeded, and the global generators are unchanged."""
    state = torch.random.get_rng_state(), numpy.random.get_state()[2], random.getstate()
    data = {n: as_dataset(DataLoader(Plain(jitter=True), num_workers=n)) for n in (0, 2)}
    batches = {n: list(images.shuffled_batches(8, 3)) for n, images in data.items()}
    assert same(batches[0], batches[2])
    assert same(batches[0][1:], list(data[0].shuffled_batches(8, 3, start=1)))
    assert not same(batches[0], list(data[0].shuffled_batches(8, 4)))
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert numpy.random.get_state()[2] == state[1] and random.getstate() == state[2]


def test_labels_that_change_are_refused():
    data = Plain()
    data.targets = torch.zeros(N, dtype=torch.long)
    with pytest.raises(InputError, match=r"image 1 of the Dataset is .* of class 1, .* class 0"):
        as_dataset(data).batch(torch.arange(3))


# splits


def test_splits_of_a_mapping_and_of_one_set():
    data = as_splits({"train": (X, Y), "val": (X[:9], Y[:9]), "test": Plain(), "classes": "abc"})
    assert [len(data[name]) for name in ("train", "val", "test")] == [N, 9, N]
    assert data.classes == ("a", "b", "c") and data.notes == ()
    data = as_splits(DataLoader(Plain()))
    assert [len(data[name]) for name in ("train", "val", "test")] == [21, 3, 6]
    assert data.classes == ("0", "1", "2") and "held out of train" in data.notes[0]
    assert as_splits(data) is data


@pytest.mark.parametrize("data", [DataLoader(Plain(), batch_size=5), {"train": (X, Y)}])
def test_fit_and_evaluate_accept_them(data, tmp_path, capsys):
    run = nuat.fit(row(), data=data, out=tmp_path / "run")
    assert run.finished and run.config["data"]["train"] == 21
    assert "val split is held out of train" in capsys.readouterr().out
    f = nuat.load_model(run.path).model
    scores = [nuat.evaluate(f, images, Linf(0.01), "fgsm").robust for images in (Plain(), (X, Y))]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("count", "batch_size", "fits"), [(17, 8, False), (16, 8, True), (9, 1, False)]
)
def test_a_last_batch_of_one_image_is_refused_before_training(count, batch_size, fits, tmp_path):
    f = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)
    )
    x, y = torch.rand(count, 1, 8, 8), torch.arange(count) % 3
    given = dict.fromkeys(("train", "val", "test"), (x, y))
    recipe = (
        nuat.get_recipe("nuat-wa", "digits")
        .with_epochs(1)
        .with_override("batch_size", str(batch_size))
    )
    if fits:
        assert nuat.fit(recipe, f, given, out=tmp_path / "run").finished
        return
    with pytest.raises(InputError, match=f"{count} training images in batches of {batch_size} "):
        nuat.fit(recipe, f, given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_a_recipe_get_a_fallback():
    with pytest.warns(UserWarning, match="there is no recipe 'normal' for data"):
        assert nuat.get_recipe("normal", "data", in_memory=True).epochs == 100
    with pytest.raises(InputError, match=r"augment.scale.*folder:PATH"):
        nuat.fit(row(augment=Augment(scale=(0.5, 1.0))), data={"train": (X, Y)}, out="never")


# archives


def archive(path, **arrays):
    numpy.savez(path, **arrays)
    return path


BYTES = (X * 255).byte()


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (BYTES.numpy(), BYTES),
        (BYTES.permute(0, 2, 3, 1).numpy(), BYTES),
        (BYTES[:, 0].numpy(), BYTES[:, :1]),
        (BYTES[:, :1].numpy(), BYTES[:, :1]),
        (X.numpy(), X),
        (X.double().numpy(), X),
    ],
)
def test_npz(tmp_path, x, expected):
    file = archive(tmp_path / "my data.npz", x_train=x, y_train=Y.numpy().astype(numpy.uint8))
    data = nuat.load_dataset(f"npz:{file}")
    whole = torch.cat([data[name].x for name in ("train", "val", "test")])
    assert [len(data[name]) for name in ("train", "val", "test")] == [21, 3, 6]
    assert whole.shape == expected.shape and data.train.y.dtype == torch.int64
    keys = sorted(map(tuple, whole.float().flatten(1).tolist()))
    assert keys == sorted(map(tuple, expected.float().flatten(1).tolist()))


def test_npz_with_the_names_of_medmnist(tmp_path):
    arrays = {}
    for name, count in (("train", 30), ("val", 12), ("test", 9)):
        arrays[f"{name}_images"] = BYTES[:count, 0].numpy()
        arrays[f"{name}_labels"] = Y[:count, None].numpy()
    file = archive(tmp_path / "m.npz", **arrays, classes=numpy.array(["a", "b", "c"]))
    data = nuat.load_dataset(f"npz:{file}")
    assert [len(data[name]) for name in ("train", "val", "test")] == [30, 12, 9]
    assert data.classes == ("a", "b", "c") and data.notes == ()
    assert torch.equal(data.test.x, BYTES[:9, :1]) and torch.equal(data.test.y, Y[:9])


# functions of the user

SOURCE = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def make(count=30):
    x, y = torch.rand(count, 1, 5, 5), torch.arange(count) % 2
    return {"train": DataLoader(TensorDataset(x, y)), "test": (x[:4], y[:4])}

def pair():
    return torch.rand(30, 1, 5, 5), torch.arange(30) % 2

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "owndata.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "owndata", raising=False)
    yield tmp_path
    sys.modules.pop("owndata", None)


def test_a_function_in_a_module_of_the_working_directory(module):
    before = list(sys.path)
    data = nuat.load_dataset("owndata:make(count=40)")
    assert [len(data[name]) for name in ("train", "val", "test")] == [36, 4, 4]
    assert data.name == "owndata:make(count=40)"
    assert [place for place in sys.path if place in before] == before, "only added to"
    assert len(nuat.load_dataset("owndata:pair").train) == 22


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuch:make", "there is no Python module 'nosuch'"),
        ("owndata:nosuch", "unknown name in owndata 'nosuch'"),
        ("owndata:number", "owndata:number is a int, not a function"),
        ("owndata:make(size=3)", "cannot read the data.*size"),
    ],
)
def test_an_invalid_function_is_refused(module, text, words):
    with pytest.raises(InputError, match=words):
        nuat.load_dataset(text)


KEPT = """
import sys, torch
from torch.utils.data import Dataset
from dataclasses import replace
from nuat.data.adapters import as_dataset

class Images(Dataset):
    targets = [i % 10 for i in range(40)]
    def __len__(self): return 40
    def __getitem__(self, i): return torch.rand(3, 8, 8), i % 10

sys.kept = replace(as_dataset(Images()), workers=2).shuffled_batches(8, 0)
next(sys.kept)
"""


def test_a_process_ends_although_it_keeps_an_iterator_with_workers():
    ended = subprocess.run([sys.executable, "-c", KEPT], timeout=60, capture_output=True, text=True)
    assert ended.returncode == 0 and not ended.stderr
