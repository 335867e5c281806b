"""Notes on models and outcomes that make a robust accuracy misleading."""

import pytest
import torch

import nuat
from nuat.attacks import (
    PGD,
    Attack,
    Ensemble,
    Square,
)
from nuat.errors import InputError
from tests.evaluation.conftest import BALL


class Opaque(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.detach())


def test_a_model_without_gradients_can_be_attacked_by_square_only(net, images):
    scores = nuat.evaluate(Opaque(net), images, BALL, ["square-100"], samples=40)
    assert scores.worst_case_accuracy < scores.clean_accuracy
    assert any("no gradient reaches" in note for note in scores.notes)
    for name in ("pgd-2", "apgd-ce-5", "fab-5", "fab-t-5"):
        with pytest.raises(InputError, match="does not pass gradients"):
            nuat.evaluate(Opaque(net), images, BALL, [name], samples=40)


class Noisy(torch.nn.Module):
    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        z = self.net(x)
        match self.how:
            case "randomized":
                return z + torch.randn_like(z)
            case "neighbours":
                return z - 5 * z.mean(0)
            case "softmax":
                return z.softmax(1)
            case "quantised":
                return self.net((x * 8).round() / 8)
            case "root":
                return z + (x - x.detach()).abs().sum((1, 2, 3))[:, None].sqrt()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("randomized", "randomized"),
        ("neighbours", "depend on the other images"),
        ("softmax", "softmax"),
        ("quantised", "exactly zero"),
        ("root", "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_misleading_properties_of_a_model_are_noted(net, images, how, said):
    scores = nuat.evaluate(Noisy(net, how), images, BALL, ["fgsm"], samples=40)
    assert any(said in note for note in scores.notes), scores.notes


def test_an_ordinary_model_has_no_notes(net, images):
    assert nuat.evaluate(net.eval(), images, BALL, ["fgsm"], samples=40).notes == []
    notes = nuat.evaluate(net.train(), images, BALL, ["fgsm"], samples=40).notes
    net.eval()
    assert len(notes) == 1 and "train mode" in notes[0]


class Blind(Attack):
    """Does nothing; stands for attacks that masked gradients have disarmed."""

    def run(self, g, x, y, noise):
        return x


def test_square_breaking_more_than_gradient_attacks_is_noted(net, images):
    parts = Ensemble(BALL, (("apgd-ce", Blind(BALL)), ("square", Square(BALL, steps=200))), "both")
    notes = nuat.evaluate(net, images, BALL, {"both": parts}, samples=40).notes
    assert any("Square" in note for note in notes)


def test_successes_of_restarts_alone_are_noted(net, images):
    weak = PGD(BALL, steps=2, restarts=6)
    notes = nuat.evaluate(net, images, BALL, {"weak": weak}).notes
    assert any("only restarts succeed" in note for note in notes)


def test_a_bf16_search_is_verified_in_float32_and_noted(net, images):
    scores = nuat.evaluate(net, images, BALL, ["apgd-ce-20"], search_precision="bf16", samples=100)
    exact = nuat.evaluate(net, images, BALL, ["apgd-ce-20"], samples=100)
    assert any("bfloat16" in note for note in scores.notes)
    assert abs(scores.robust_accuracy("apgd-ce-20") - exact.robust_accuracy("apgd-ce-20")) <= 0.05
