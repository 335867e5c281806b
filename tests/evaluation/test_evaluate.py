"""Verdicts: right, independent of how they were run, and honest about what was given."""

import warnings

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import Attack
from nuat.errors import InputError, NonFiniteError
from nuat.evaluation import EvaluationResult

BALL = nuat.Linf(0.2)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    row = (
        nuat.get_recipe("fgsm-at", "digits")
        .with_epochs(3)
        .with_override("model", "small-cnn(width=8)")
    )
    return nuat.load_model(nuat.fit(row, out=tmp_path_factory.mktemp("fgsm") / "run").path).model


@pytest.fixture(scope="module")
def test_images():
    return nuat.load_dataset("digits").test


def test_verdicts_do_not_depend_on_batch_size(net, test_images):
    runs = [
        nuat.evaluate(net, test_images, BALL, ["pgd-10", "gama-10"], samples=90, batch_size=size)
        for size in (7, 64, 500)
    ]
    assert runs[0].robust == runs[1].robust == runs[2].robust
    assert runs[0].predicted == runs[2].predicted
    assert 0.05 < runs[0].worst_case_accuracy < runs[0].clean_accuracy


def test_the_seed_chooses_samples_and_noise(net, test_images):
    one, other = (
        nuat.evaluate(net, test_images, BALL, ["pgd-3"], samples=50, seed=seed) for seed in (0, 1)
    )
    assert one.indices != other.indices
    labels = torch.tensor(one.labels)
    assert labels.bincount(minlength=10).tolist() == [5] * 10


def test_worst_is_image_by_image():
    standing = {"a": [True, True, False, False], "b": [True, False, True, False]}
    scores = EvaluationResult([0, 1, 2, 3], [0] * 4, [0, 0, 0, 1], standing, {}, "", {}, 0, "", {})
    assert (scores.clean_accuracy, scores.robust_accuracy("a"), scores.worst_case_accuracy) == (
        0.75,
        0.5,
        0.25,
    )
    assert EvaluationResult.from_dict(scores.to_dict()) == scores


class Cheat(Attack):
    """Returns what it may not: too far, out of the box, or not a number."""

    how = "far"

    def run(self, g, x, y, noise):
        if self.how == "nan":
            return torch.full_like(x, float("nan"))
        return x + 2 if self.how == "out" else 1 - x


@pytest.mark.parametrize("how", ["far", "out", "nan"])
def test_an_image_falls_only_to_a_point_within_the_rules(net, test_images, how):
    cheat = type("Cheat", (Cheat,), {"how": how})(BALL)
    scores = nuat.evaluate(net, test_images, BALL, {"cheat": cheat}, samples=60)
    assert scores.robust_accuracy("cheat") == scores.clean_accuracy


def test_a_network_left_in_train_mode_is_judged_in_eval_mode_and_stays_in_train_mode(
    net, test_images
):
    expected = nuat.evaluate(net.eval(), test_images, BALL, ["fgsm"])
    state = {k: v.clone() for k, v in net.state_dict().items()}
    assert nuat.evaluate(net.train(), test_images, BALL, ["fgsm"]).robust == expected.robust
    assert net.training
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    net.eval()


class Wrapped(nn.Module):
    def __init__(self, f, change):
        super().__init__()
        self.f, self.change = f, change

    def forward(self, x):
        return self.change(self.f(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: (z, z), "returns a tuple, not a tensor of logits"),
        (lambda z: {"logits": z}, "returns a dict, not a tensor"),
        (lambda z: z[:, 0], "not logits"),
    ],
)
def test_a_network_that_returns_no_logits_is_refused(net, test_images, change, message):
    with pytest.raises(InputError, match=message):
        nuat.evaluate(Wrapped(net, change), test_images, BALL, ["fgsm"])


def test_nan_logits_are_refused(net, test_images):
    with pytest.raises(NonFiniteError, match="NaN or infinite logits"):
        nuat.evaluate(Wrapped(net, lambda z: z * float("nan")), test_images, BALL, ["fgsm"])


def test_a_softmax_is_noted_once(net, test_images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = nuat.evaluate(Wrapped(net, lambda z: z.softmax(1)), test_images, BALL, ["fgsm"])
    assert sum("softmax" in note for note in result.notes) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), r"\[0, 1\].*divide by 255"),
        (lambda x, y: (x * 4 - 2, y), "normalized"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
        (lambda x, y: (x, y + 1), "labels run from 1 to 10.*count from 1"),
        (lambda x, y: (x[:, 0], y), "not floats"),
        (lambda x, y: (x, y[:-1]), "labels"),
        (lambda x, y: (x.repeat(1, 3, 1, 1), y), "does not take images"),
    ],
)
def test_bad_images_and_labels_are_named(net, test_images, change, message):
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, change(test_images.x, test_images.y), BALL, ["fgsm"])


def test_more_samples_than_images_are_refused(net, test_images):
    with pytest.raises(InputError, match=r"401 samples.*400 images"):
        nuat.evaluate(net, test_images, BALL, ["fgsm"], samples=401)


class Flat(nn.Module):
    """`.view` is the usual way to flatten, and refuses what is laid out as channels_last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 36, 5)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().view(x.size(0), -1))


class Uncopied(Flat):
    def __deepcopy__(self, memo):
        raise TypeError("not to be copied")


@pytest.mark.parametrize(
    ("kind", "search_precision", "said"),
    [
        (Flat, "fp32", []),
        (Flat, "bf16", ["channels_last is not used", "bfloat16"]),
        (Uncopied, "fp32", ["cannot be copied"]),
    ],
)
def test_a_network_that_cannot_be_made_faster_is_searched_as_it_is(kind, search_precision, said):
    torch.manual_seed(0)
    f, x = kind().eval(), torch.rand(20, 2, 6, 6)
    scores = nuat.evaluate(
        f, (x, f(x).argmax(1)), nuat.Linf(0.3), ["pgd-10"], search_precision=search_precision
    )
    assert scores.clean_accuracy == 1 and scores.robust_accuracy("pgd-10") < 1
    assert len(scores.notes) == len(said)
    assert all(words in note for words, note in zip(said, scores.notes, strict=True))
    f.train()
    notes = nuat.evaluate(f, (x, f(x).argmax(1)), nuat.Linf(0.3), ["pgd-2"]).notes
    assert f.training and any("train mode" in note for note in notes)


@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_tf32_is_off_however_it_was_set_and_as_it_was_afterwards(net, test_images, setting):
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before, seen = [each.fp32_precision for each in settings], []

    def look(z):
        seen.extend(each.fp32_precision for each in settings)
        return z

    f = Wrapped(net, look)
    try:
        for each in settings:
            each.fp32_precision = setting
        nuat.evaluate(f, test_images, BALL, ["fgsm"], samples=10)
        assert [each.fp32_precision for each in settings] == [setting, setting]
    finally:
        for each, old in zip(settings, before, strict=True):
            each.fp32_precision = old
    assert seen.count("ieee") > 4
