"""What makes a training run this one, and networks of which an EMA would be another function."""

import dataclasses
import random

import numpy
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import nuat
from nuat.errors import InputError
from nuat.nn.ema import check_copy

RECIPE = dataclasses.replace(
    nuat.get_recipe("normal", "digits").with_epochs(1), batch_size=8, model="small-cnn(width=4)"
)


def images(count=24):
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(count) % 2


class Pairs(Dataset):
    def __init__(self, x, y):
        self.x, self.targets = x, y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.targets[index]


def splits(x, y, kind=lambda x, y: (x, y)):
    return {name: kind(x, y) for name in ("train", "val", "test")}


@pytest.mark.parametrize("kind", [lambda x, y: (x, y), Pairs], ids=["tensors", "Dataset"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("what", ["pixel", "label"])
def test_a_run_on_other_data_of_the_same_counts_is_refused(kind, split, what, tmp_path):
    x, y = images()
    for _ in range(2):
        nuat.fit(RECIPE, data=splits(x, y, kind), out=tmp_path)
    data = splits(x, y, kind)
    x, y = x.clone(), y.clone()
    if what == "pixel":
        x[20, 0, 3, 3] = 1 - x[20, 0, 3, 3]
    else:
        y[:2] = y[:2].flip(0)
    data[split] = kind(x, y)
    with pytest.raises(InputError, match=rf"data.content_hash.{split}: \w+ here, \w+ there"):
        nuat.fit(RECIPE, data=data, out=tmp_path)


def test_the_hash_of_a_folder_covers_names_sizes_and_bytes(tmp_path):
    pixels = numpy.random.default_rng(0).integers(0, 255, (40, 8, 8, 3), dtype=numpy.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / "data" / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.bmp")

    def content_hash():
        return nuat.load_dataset(f"folder:{tmp_path / 'data'}(size=8)").train.content_hash()

    before = content_hash()
    assert content_hash() == before
    files = sorted((tmp_path / "data" / "train" / "a").glob("*.bmp"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)  # equal names and sizes
    assert content_hash() != before


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 2)

    def features(self, x):
        return self.norm(self.conv(x)).relu()

    def forward(self, x):
        return self.head(nn.functional.adaptive_avg_pool2d(self.features(x), 2).flatten(1))


class Closure(Net):
    def __init__(self):
        super().__init__()
        self.features = lambda x: self.norm(self.conv(x)).relu()


class BoundMethod(Net):
    def __init__(self):
        super().__init__()
        self.layers = [self.run_conv]

    def __deepcopy__(self, memo):
        other = Net.__new__(type(self))
        memo[id(self)] = other
        nn.Module.__init__(other)
        other.conv, other.norm, other.head = Net().conv, Net().norm, Net().head
        other.load_state_dict(self.state_dict())
        other.layers = self.layers
        return other

    def run_conv(self, x):
        return self.conv(x)

    def features(self, x):
        return self.norm(self.layers[0](x)).relu()


class Hook(Net):
    def __init__(self):
        super().__init__()
        self.kept = {}
        self.norm.register_forward_hook(lambda *given: self.kept.__setitem__("x", given[2]))

    def features(self, x):
        super().features(x)
        return self.kept["x"]


class Bias(Net):
    """Only a bias of 0 belongs to the network itself."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.bias)
        self.offset = lambda: self.head.bias

    def forward(self, x):
        z = nn.functional.linear(self.features(x).mean((2, 3)).repeat(1, 4), self.head.weight)
        return z + self.offset()


class Stored(nn.Module):
    """The network is also stored where deep copies do not look."""

    def __init__(self):
        super().__init__()
        self.net = Net()
        self.run = self.net.forward
        self.call = lambda x: self.run(x)

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize("kind", [Closure, BoundMethod, Hook, Bias, Stored])
def test_a_network_whose_copy_uses_its_weights_is_refused_before_training(kind, tmp_path):
    x, y = images()
    recipe = dataclasses.replace(RECIPE, ema_decay=0.9)
    with pytest.raises(InputError, match=r"cop(ied|y)"):
        nuat.fit(recipe, kind(), splits(x, y), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    nuat.fit(RECIPE, kind(), splits(x, y), out=tmp_path / "without")


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.second = self.conv


class Random(Net):
    def forward(self, x):
        return super().forward(x) * (1 + random.random()) + torch.rand(1)


@pytest.mark.parametrize("kind", [Net, Tied, Random])
def test_check_copy_leaves_an_ordinary_network_as_it_was(kind):
    model = kind().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_copy(model, images()[0][:2])
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Scaled(Net):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return super().forward(x) * self.scale


def test_another_function_of_the_same_weights_does_not_resume_a_run(tmp_path):
    x, y = images()
    recipe = RECIPE.with_epochs(3)
    nuat.fit(recipe, Scaled(1.0), splits(x, y), out=tmp_path, max_time=0.001)
    with pytest.raises(InputError, match="give different logits"):
        nuat.fit(recipe, Scaled(-1.0), splits(x, y), out=tmp_path)
    assert nuat.fit(recipe, Scaled(1.0), splits(x, y), out=tmp_path).finished
