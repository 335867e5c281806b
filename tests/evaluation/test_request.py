"""Arguments that cannot be used, and attacks that need more classes."""

import pytest
import torch

import nuat
from nuat.attacks import (
    Ensemble,
    parse_attack,
)
from nuat.cli.evaluate import _parse_indices
from nuat.errors import InputError
from tests.evaluation.conftest import BALL


@pytest.mark.parametrize(
    ("text", "message"), [("20-10", "runs backwards; write 10-20"), ("1,x", "not 'x'")]
)
def test_malformed_indices_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        _parse_indices(text)


def test_a_long_list_of_indices_is_not_taken_for_a_file():
    assert _parse_indices(",".join(map(str, range(5000)))) == list(range(5000))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"indices": [0, 0]}, "duplicate"),
        ({"indices": []}, "none"),
        ({"indices": [0, 400]}, "400 is outside"),
        ({"indices": [-1]}, "-1 is outside"),
        ({"indices": [1], "samples": 3}, "both"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"search_precision": "fp16"}, "'fp32' or 'bf16'"),
        ({"save_adversarial": True}, "give out"),
    ],
)
def test_invalid_arguments_are_refused(net, images, asked, message):
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, images, BALL, ["pgd-2"], **asked)


def test_an_ensemble_refuses_attacks_with_snapshots():
    with pytest.raises(InputError, match="snapshots"):
        parse_attack("custom(parts=('apgd-ce', 'pgd-20(snapshots=(7,))'))", BALL)


def test_parts_that_need_more_classes_are_left_out_with_a_note():
    parts, notes = nuat.parse_attack("autoattack", BALL).applicable(3)
    assert list(parts) == ["apgd-ce", "fab-t", "square"]
    assert any("without apgd-t" in note for note in notes)
    assert any("2 targets in fab-t" in note for note in notes)
    parts, notes = nuat.parse_attack("autoattack-v1", BALL).applicable(2)
    assert list(parts) == ["apgd-ce", "fab", "square"] and len(notes) == 1
    assert nuat.parse_attack("autoattack", BALL).applicable(10)[1] == []


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
@pytest.mark.parametrize("version", ["autoattack", "autoattack-v1"])
def test_autoattack_runs_with_any_number_of_classes(classes, version):
    torch.manual_seed(classes)
    f = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, classes))
    x = torch.rand(5, 3, 2, 2)
    ball = nuat.Linf(0.01)
    short = Ensemble(ball, tuple(_short(parse_attack(version, ball).parts)), version)
    scores = nuat.evaluate(f, (x, f(x).argmax(1)), ball, {version: short}, classes=classes)
    assert any(scores.robust[version]), "images that stand have seen every target"
    assert bool(scores.notes) == (classes < 10)


def _short(parts):
    for name, part in parts:
        yield name, type(part)(part.ball, restarts=part.restarts, steps=3)
