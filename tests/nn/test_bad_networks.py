"""What nuat evaluate says to networks and images it cannot attack: one line each."""

import pickle

import pytest
import torch
from torch import nn

import nuat
from nuat.errors import InputError, NonFiniteError

BALL = nuat.Linf(0.05)
X, Y = torch.rand(6, 3, 8, 8), torch.arange(6) % 3


class Net(nn.Module):
    """A small network with something odd about what it returns."""

    def __init__(self, change=lambda z: z, channels=3):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
        self.change = change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("f", "x", "y", "classes", "error", "words"),
    [
        (Net(lambda z: z * torch.nan), X, Y, None, NonFiniteError, "NaN"),
        (Net(), X * 255, Y, None, InputError, "divide by 255"),
        (Net(), X * 4 - 2, Y, None, InputError, "normalized"),
        (Net(), X * torch.nan, Y, None, InputError, "must lie in"),
        (Net(), X, Y, 10, InputError, r"not logits \[6, 10\]"),
        (Net(), X, Y + 1, None, InputError, "count from 1"),
        (Net(), X, Y + 0.5, None, InputError, "whole numbers"),
        (Net(), X, Y[:4], None, InputError, "labels"),
        (Net(), X[:, :1], Y, None, InputError, r"does not take images \[6, 1, 8, 8\]"),
        (Net(channels=1), X, Y, None, InputError, r"does not take images \[6, 3, 8, 8\]"),
        (Net(), X[0], Y, None, InputError, r"not floats \[B, C, H, W\]"),
        (Net(lambda z: (z, z)), X, Y, None, InputError, "returns a tuple"),
        (Net(lambda z: {"logits": z}), X, Y, None, InputError, "returns a dict"),
        (Net(lambda z: z.argmax(1)), X, Y, None, InputError, "not logits"),
        (Net(lambda z: z[:, :, None]), X, Y, None, InputError, "not logits"),
    ],
)
def test_what_cannot_be_attacked_is_one_line(f, x, y, classes, error, words, tmp_path):
    with pytest.raises(error, match=words) as raised:
        nuat.evaluate(f, (x, y), BALL, ["fgsm"], classes=classes, out=tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 9), (1, 1, 7), (3, 3, 3), (2, 12, 5)])
@pytest.mark.parametrize("ball", [nuat.Linf(0.02), nuat.L2(0.1)], ids=["linf", "l2"])
def test_tiny_and_oblong_images_are_attacked(shape, ball):
    torch.manual_seed(0)
    f = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 5))
    x = torch.rand(4, *shape)
    attacks = ["square-30", "apgd-t-5", "fab-t-5", "gama-5"]
    scores = nuat.evaluate(f, (x, f(x).argmax(1)), ball, attacks, classes=5)
    assert set(scores.robust) == set(attacks)
    assert all(parts[name]["images"] == 4 for name, parts in scores.parts.items())


class Local(nn.Module):
    """A pickle of it would need its code."""


@pytest.mark.parametrize("content", ["module", "code", "text"])
def test_weights_with_code_in_them_are_refused(content, tmp_path):
    file = tmp_path / "net.pt"
    match content:
        case "module":
            torch.save(Local(), file)
        case "code":
            file.write_bytes(pickle.dumps(print))
        case "text":
            file.write_text("not weights")
    with pytest.raises(InputError, match=r"was not loaded|cannot be read"):
        nuat.load_model(file, "small-cnn")
