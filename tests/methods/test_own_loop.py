"""A training loop outside nuat: mistakes that it may make, and how a method answers them."""

import copy
import warnings
from dataclasses import dataclass, replace

import pytest
import torch

import nuat
from nuat.methods import AT, AWP, GAT, RMGM, TRADES, Free, Method, NuAT, NuAT2, NuATH, Standard
from nuat.schedules import Constant, LinearRamp, Schedule, StartAt, StepDecay

BALL = nuat.Linf(0.15)


def network():
    torch.manual_seed(0)
    return nuat.build_model("small-cnn(width=4)", 10, 1)


def batch(size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 1, 8, 8, generator=generator), torch.arange(size) % 10


def train(method, contexts, model=None):
    """Train for one step a context, and return the warnings."""
    model = model or network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = batch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for ctx in contexts:
            for loss in method.step(model, x, y, ctx):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return [str(warning.message) for warning in caught if "still 0" in str(warning.message)]


# ---- the length of a training


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (NuAT(BALL), NuAT(BALL, LinearRamp(4.5, epochs=9))),
        (NuAT2(), NuAT2(lam=LinearRamp(4.0, epochs=10))),
        (GAT(), GAT(lam=StepDecay(10.0, at=(8.6,), by=4.0))),
        (AWP(), AWP(gamma=StartAt(0.005, epoch=0.45))),
        (AWP(TRADES(beta=3)), AWP(TRADES(beta=3), gamma=StartAt(0.005, epoch=0.45))),
        (NuATH(), NuATH(NuAT(lam=LinearRamp(4.5, 9)), NuAT2(lam=LinearRamp(4.0, 10)))),
        (NuAT(lam=3), NuAT(lam=3)),
        (TRADES(), TRADES()),
        (RMGM(), RMGM()),
        (Free(), Free()),
        (AT(nuat.PGD()), AT(nuat.PGD())),
        (Standard(), Standard()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_method_has_the_length_of_the_training(method, expected):
    assert method.with_epochs(10) == expected


def test_the_defaults_are_those_of_the_published_recipes():
    """So with_epochs of a method is with_epochs of its recipe."""
    for name, data in (("nuat", "cifar10"), ("gat", "cifar10"), ("awp", "cifar10")):
        recipe = nuat.get_recipe(name, data)
        assert recipe.method.with_epochs(17) == recipe.with_epochs(17).method
    wide = nuat.get_recipe("nuat2-wrn", "cifar10")
    assert wide.method.with_epochs(17) == wide.with_epochs(17).method


@dataclass(frozen=True)
class Mine(Method):
    """A method with a schedule, which does not say how many epochs its default is made for."""

    lam: Schedule = LinearRamp(1.0, epochs=10)


@pytest.mark.parametrize(
    "method",
    [
        NuAT(lam=LinearRamp(5.0, epochs=40)),
        NuATH(NuAT(lam=LinearRamp(5.0, epochs=40))),
        GAT(lam=StepDecay(10.0, at=(34,))),
        NuAT().with_epochs(10),
        Mine(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_schedule_of_unknown_length_is_refused(method):
    with pytest.raises(nuat.InputError, match=r"lam is .*epochs=15.*rescaled"):
        method.with_epochs(15)
    assert method.rescaled(2)


@pytest.mark.parametrize("epochs", [0, -3, 1.5, True, None])
def test_a_length_that_is_no_number_of_epochs_is_refused(epochs):
    with pytest.raises(nuat.InputError, match="epochs is"):
        NuAT().with_epochs(epochs)


# ---- a context that never advances

RAMPS = [NuAT(BALL), NuAT2(BALL), NuATH(NuAT(BALL), NuAT2(BALL)), AWP(TRADES(BALL, steps=1))]
EACH = pytest.mark.parametrize("method", RAMPS, ids=lambda value: type(value).__name__)


@EACH
def test_a_context_that_never_advances_warns_once(method):
    (message,) = train(method, [nuat.StepContext() for _ in range(120)])
    assert "StepContext(epoch, batch" in message and "epoch 0" in message
    assert ("gamma" if isinstance(method, AWP) else "lam") in message


@EACH
def test_a_batch_that_begins_again_in_the_same_epoch_warns_once(method):
    contexts = [nuat.StepContext(0, batch) for _ in range(4) for batch in range(3)]
    assert len(train(method, contexts)) == 1
    assert train(method, contexts[:3]) == [], "the first epoch is as it should be"


@EACH
def test_the_length_of_an_epoch_counts_if_it_is_known(method):
    contexts = [nuat.StepContext(batches=5) for _ in range(6)]
    assert train(method, contexts[:5]) == [] and len(train(method, contexts)) == 1


@EACH
def test_a_loop_that_advances_does_not_warn(method):
    for batches in (1, 3):
        contexts = [nuat.StepContext(e, b) for e in range(4) for b in range(batches)]
        model = network()
        assert train(method, contexts, model) == []
        assert train(method, contexts, model) == [], "and may train the same network again"


@pytest.mark.parametrize(
    "method", [NuAT(BALL, lam=0), NuAT(BALL, lam=2.0), AWP(TRADES(BALL, steps=1), gamma=0)]
)
def test_a_number_is_meant(method):
    assert train(method, [nuat.StepContext() for _ in range(60)]) == []


def test_fit_does_not_warn(tmp_path):
    digits = nuat.load_dataset("digits")
    few = torch.arange(40)
    data = replace(digits, train=digits.train.subset(few), val=digits.val.subset(few[:8]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epochs in (1, 2):
            for size in (8, 20, 40):
                recipe = nuat.get_recipe("nuat", "digits").with_epochs(epochs)
                recipe = replace(recipe, model="small-cnn(width=4)", batch_size=size)
                nuat.fit(recipe, data=data, out=tmp_path / f"{epochs}-{size}")


# ---- losses that are collected before their backward

COLLECTED = [
    Standard(),
    AT(nuat.FGSM(BALL)),
    RMGM(BALL),
    GAT(BALL),
    GAT(BALL, reference="eval"),
    NuAT(BALL),
    NuAT(BALL, reference="eval"),
    NuAT2(BALL),
    NuATH(NuAT(BALL), NuAT2(BALL)),
    TRADES(BALL, steps=2),
    AWP(TRADES(BALL, steps=2, clean_first=False), gamma=0.01),
]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("method", COLLECTED, ids=lambda value: type(value).__name__)
def test_a_list_of_losses_trains_like_the_loop(method, momentum):
    """Gradients and statistics are equal, bit for bit."""
    x, y = batch()
    models = []
    for collect in (False, True):
        model = network().train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = momentum
        torch.manual_seed(3)
        losses = method.step(model, x, y, nuat.StepContext(20, 1, batch_size=8))
        for loss in list(losses) if collect else losses:
            loss.backward()
        models.append(model)
    one, other = models
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_free_says_that_each_loss_needs_its_backward():
    x, y = batch()
    with pytest.raises(nuat.InputError, match=r"loss\.backward\(\) inside `for loss in"):
        list(Free(BALL).step(network().train(), x, y, nuat.StepContext()))


# ---- the threat model

ALL = [AT, AWP, Free, GAT, NuAT, NuAT2, NuATH, RMGM, TRADES]
ALL += [nuat.FGSM, nuat.PGD, nuat.APGDT, nuat.FAB, nuat.Square, nuat.AutoAttack, nuat.Ensemble]
WITH_BALL = [Free, GAT, NuAT, NuAT2, RMGM, TRADES, nuat.PGD, nuat.APGD, nuat.AutoAttack]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", ["eps", "epsilon"])
@pytest.mark.parametrize(
    ("eps", "ball"),
    [
        (0.15, "ball=Linf(0.15)"),
        (8 / 255, "ball=Linf(8/255)"),
        ("8/255", "ball=Linf(8/255)"),
        (8, "ball=Linf(8/255)"),
        (None, "ball=Linf(8/255)"),
    ],
)
def test_a_radius_is_answered_with_the_ball(kind, name, eps, ball):
    with pytest.raises(nuat.InputError) as caught:
        kind(**{name: eps})
    assert f"{kind.__name__} has no parameter {name}" in str(caught.value)
    assert ball in str(caught.value)


@pytest.mark.parametrize("kind", WITH_BALL)
@pytest.mark.parametrize(
    ("eps", "ball"), [(0.15, "Linf(0.15)"), (8, "Linf(8/255)"), ("8/255", "Linf(8/255)")]
)
def test_a_number_in_place_of_the_ball_is_answered_with_the_ball(kind, eps, ball):
    for make in (lambda: kind(ball=eps), lambda: kind(eps)):
        with pytest.raises(nuat.InputError, match="did you mean") as caught:
            make()
        assert f"did you mean ball={ball}?" in str(caught.value)


def test_a_radius_is_answered_with_the_ball_wherever_one_is_given():
    recipe, digits = nuat.get_recipe("nuat", "digits"), nuat.load_dataset("digits")
    for give in (
        recipe.with_threat_model,
        lambda eps: replace(recipe, ball=eps),
        lambda eps: nuat.parse_attack("pgd-20", eps),
        lambda eps: nuat.evaluate(network(), digits.test, eps, ["fgsm"]),
    ):
        with pytest.raises(nuat.InputError, match=r"^the threat model is 0.15.*ball=Linf\(0.15\)"):
            give(0.15)
    for path in ("eps", "epsilon", "ball.eps", "method.eps"):
        with pytest.raises(nuat.InputError, match="--eps and --norm"):
            recipe.with_override(path, "0.1")
    for name in ("eps", "epsilon", "ball"):
        with pytest.raises(nuat.InputError, match=r"--eps and --norm|takes a Ball"):
            nuat.parse_attack(f"pgd-20({name}=0.1)", BALL)


@dataclass(frozen=True)
class WithEps(Method):
    """A method of a user that has a parameter of this name."""

    eps: float = 0.1


def test_a_method_of_ones_own_may_have_an_eps():
    assert WithEps(eps=0.2).eps == 0.2 and WithEps(0.2) == WithEps(eps=0.2)
    with pytest.raises(nuat.InputError, match="no parameter epsilon"):
        WithEps(epsilon=0.2)


def test_methods_are_still_copied_compared_and_replaced():
    method = NuAT(BALL, lam=2)
    assert copy.deepcopy(method) == method == replace(method) and hash(method)
    assert method.lam == Constant(2.0)
