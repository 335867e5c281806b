"""Catastrophic overfitting: what counts as one, and what a run does about it."""

import json
from dataclasses import replace
from itertools import count

import pytest
import torch

import nuat
from nuat.attacks import FGSM
from nuat.data import Images
from nuat.guard import collapsed, validate
from nuat.methods import AT, NuAT2
from nuat.runs import Run, read_weights

BALL = nuat.Linf(0.15)


def history(*pairs):
    """Metrics of epochs from (accuracy under PGD, accuracy under FGSM)."""
    return [
        {"epoch": place + 1, "val_robust": robust, "val_fgsm": fgsm}
        for place, (robust, fgsm) in enumerate(pairs)
    ]


def reports(lines):
    """The epochs whose line, when it was the last, was said to be a collapse."""
    return [n for n in range(1, len(lines) + 1) if collapsed(lines[:n])]


# what counts


def test_nothing_is_said_of_nothing_or_of_a_first_epoch():
    assert collapsed([]) == ""
    assert collapsed(history((0.0, 0.9))) == ""


def test_a_collapse_is_said_once_and_in_figures():
    lines = history((0.2, 0.3), (0.41, 0.5), (0.023, 0.87), (0.0, 0.9), (0.01, 0.88))
    assert reports(lines) == [3]
    said = collapsed(lines[:3])
    for word in ("catastrophic overfitting", "epoch 3", "41.0%", "2.3%", "87.0%"):
        assert word in said


@pytest.mark.parametrize(
    ("before", "now", "fgsm", "is_one"),
    [
        (0.5, 0.25, 0.45, True),  # half, at 20 points below FGSM
        (0.5, 0.2501, 0.9, False),  # not yet half
        (0.5, 0.25, 0.4499, False),  # FGSM falls with it
        (0.5, 0.0, 0.0, False),
        (0.18, 0.08, 0.9, True),  # 10 points
        (0.18, 0.0801, 0.9, False),  # half and less, but by less than 10 points
        (0.1, 0.0, 0.9, True),
        (0.0999, 0.0, 0.9, False),  # there was nothing to lose
    ],
)
def test_thresholds(before, now, fgsm, is_one):
    lines = history((before, before), (now, fgsm))
    assert bool(collapsed(lines)) is is_one


def test_the_best_so_far_counts_and_not_the_epoch_before():
    slow = history((0.6, 0.6), (0.5, 0.7), (0.4, 0.8), (0.31, 0.9), (0.3, 0.9), (0.29, 0.9))
    assert reports(slow) == [5]


def test_after_a_recovery_it_is_said_again():
    lines = history(
        (0.5, 0.5), (0.0, 0.9), (0.1, 0.9), (0.45, 0.5), (0.5, 0.5), (0.02, 0.9), (0.0, 0.9)
    )
    assert reports(lines) == [2, 6]


def test_only_the_figures_it_needs_are_read():
    lines = [line | {"loss": 1.0, "collapse": "before"} for line in history((0.5, 0.5), (0, 0.9))]
    assert collapsed(lines)


def test_validation_is_clean_fgsm_and_seven_steps(linear):
    f = linear(2, (1, 1, 1))
    with torch.no_grad():
        f[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        f[1].bias.copy_(torch.tensor([0.5, -0.5]))  # class 1 from 1/2 on
    x = torch.tensor([0.1, 0.4, 0.6, 0.9, 0.3]).reshape(-1, 1, 1, 1)
    images = Images(x, torch.tensor([0, 0, 1, 1, 1]))
    for size in (1, 2, 500):
        found = validate(f, images, BALL, batch_size=size)
        assert found == {"val_clean": 4 / 5, "val_fgsm": 2 / 5, "val_robust": 2 / 5}
    small = validate(f, images, nuat.Linf(0.05))
    assert small == {"val_clean": 4 / 5, "val_fgsm": 4 / 5, "val_robust": 4 / 5}


# what a run does


@pytest.fixture(scope="module")
def data():
    digits = nuat.load("digits")
    few = torch.arange(96)
    return replace(digits, train=digits.train.take(few), val=digits.val.take(few[:20]))


def row(on_collapse, epochs=4, method=None, **changes):
    base = nuat.recipe("fgsm-at", "digits").lasting(epochs)
    changes = {"method": method or AT(FGSM(BALL)), "average": 0.5, "batch_size": 32, **changes}
    return replace(base, model="small-cnn(width=4)", on_collapse=on_collapse, **changes)


@pytest.fixture
def figures(monkeypatch):
    """`figures({3: 0.0})`: validation finds this accuracy under PGD after epoch 3; else 1/2."""

    def fake(fallen):
        from nuat.train import _Training

        def measured(self):
            return fallen.get(self, 0.5)

        monkeypatch.setattr(_Training, "validated", measured, raising=False)

    found = {}

    def install(fallen):
        found.clear()
        epochs = count(1)

        def validate(f, images, ball):
            epoch = next(epochs)
            found[epoch] = {k: v.clone() for k, v in f.state_dict().items()}
            robust = fallen.get(epoch, 0.5)
            return {"val_clean": 0.9, "val_fgsm": 0.9 if robust < 0.25 else 0.5,
                    "val_robust": robust}  # fmt: skip

        monkeypatch.setattr("nuat.train.validate", validate)
        return found

    del fake
    return install


def weights(run, name):
    return read_weights(run.path / f"{name}.safetensors")[0]


def state(run, name="checkpoint"):
    return torch.load(run.path / f"{name}.pt", weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b
