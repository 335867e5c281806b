"""The step size: in pixel units or in units of eps, and what is noted or refused."""

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import attack_registry, parse_attack
from nuat.attacks.pgd import ProjectedGradientAttack
from nuat.attacks.quick import UPPER_BOUND
from nuat.attacks.registry import ATTACK_CLASSES
from nuat.errors import InputError
from nuat.evaluation.request import applicable_attacks
from nuat.rng import PerImageNoise
from nuat.schedules import Constant, StepDecay

BALL = nuat.Linf(8 / 255)
TAKES_STEP_SIZE = [
    name for name, kind in ATTACK_CLASSES.items() if issubclass(kind, ProjectedGradientAttack)
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5))


@pytest.mark.parametrize("ball", [nuat.Linf(8 / 255), nuat.L2(0.5)], ids=repr)
@pytest.mark.parametrize("name", TAKES_STEP_SIZE)
def test_an_absolute_step_is_the_relative_one_times_eps(name, ball):
    f, x = network(), torch.rand(5, 3, 4, 4)
    y = torch.randint(5, (5,))
    noise = PerImageNoise(0, torch.arange(5))
    absolute = parse_attack(f"{name}(step_size={ball.eps} / 4)", ball)
    relative = parse_attack(f"{name}(rel_step_size=1/4)", ball)
    assert absolute.step_size == ball.eps / 4
    assert torch.equal(absolute(f, x, y, noise), relative(f, x, y, noise))


def test_an_absolute_step_stays_when_eps_changes():
    attack = nuat.PGD(nuat.Linf(0.5), steps=1, step_size=0.1, start=nuat.NoStart())
    x = torch.full((1, 3, 4, 4), 0.5)
    moved = attack(network(), x, torch.tensor([1])) - x
    assert moved.abs().max().item() == pytest.approx(0.1)


@pytest.mark.parametrize("name", TAKES_STEP_SIZE)
def test_two_step_sizes_at_once_are_refused(name):
    for relative in ("1/4", "1", "0.3"):
        with pytest.raises(InputError, match="both given; give only one"):
            parse_attack(f"{name}(step_size=2/255, rel_step_size={relative})", BALL)
    with pytest.raises(InputError, match="both given; give only one"):
        ATTACK_CLASSES[name](BALL, step_size=2 / 255, rel_step_size=0.3)


@pytest.mark.parametrize("name", TAKES_STEP_SIZE)
@pytest.mark.parametrize("spelling", ["step", "size", "stepsize", "alpha", "eps_iter", "eps_step"])
def test_other_spellings_are_answered_with_both_step_sizes(name, spelling):
    with pytest.raises(InputError, match=r"write step_size=2/255 .* or rel_step_size=1/4"):
        parse_attack(f"{name}({spelling}=2/255)", BALL)


@pytest.mark.parametrize("size", [0, -0.1, True, "2/255", float("nan"), float("inf"), 2])
def test_a_step_size_that_is_no_step_is_refused(size):
    with pytest.raises(InputError, match=f"step_size is {size!r}"):
        nuat.PGD(BALL, step_size=size)


@pytest.mark.parametrize(
    "text",
    [
        "pgd-20(rel_step_size=2/255)",
        "pgd-3",
        "pgd-3(step_size=2/255)",
        "mt-pgd-3",
        "targeted-pgd-3",
        "gama-20(rel_step_size=0.01)",
        "gama-fw-100(rel_step_size=0.001)",
        "nuclear-1",
        "fgsm(step_size=2/255)",
    ],
)
def test_steps_that_cannot_cross_the_ball_are_noted(text):
    _, notes = applicable_attacks({text: parse_attack(text, BALL)}, classes=10)
    (note,) = notes
    assert note.startswith(f"{text}: all steps together move by 0.")
    assert "in units of eps" in note


def test_the_parts_of_an_ensemble_are_noted_too():
    custom = parse_attack("custom(parts=('pgd-20', 'pgd-20(rel_step_size=2/255)'))", BALL)
    _, notes = applicable_attacks({"custom": custom}, classes=10)
    assert len(notes) == 1 and "pgd-20(rel_step_size=2/255): all steps" in notes[0]


def test_no_attack_is_noted_by_default():
    for ball in (BALL, nuat.L2(0.5), nuat.Linf(0.0)):
        for name in attack_registry:
            if name != "custom":
                attack = parse_attack(name, ball)
                quick = isinstance(attack, nuat.MM | nuat.APGDMALT)
                expected = [f"{name}: {UPPER_BOUND}"] if quick else []
                assert applicable_attacks({name: attack}, classes=10)[1] == expected


def test_training_notes_an_attack_that_cannot_cross_the_ball():
    weak = nuat.PGD(BALL, steps=10, rel_step_size=2 / 255)
    for method in (
        nuat.AT(weak),
        nuat.AWP(nuat.AT(weak)),
        nuat.TRADES(BALL, rel_step_size=2 / 255),
    ):
        assert any("all steps together" in note for note in method.startup_notes(64, 10))
    for method in (nuat.AT(nuat.PGD(BALL)), nuat.AT(nuat.RFGSM(BALL)), nuat.TRADES(BALL)):
        assert method.startup_notes(64, 10) == []


@pytest.mark.parametrize(
    ("attack", "description"),
    [
        (nuat.PGD(BALL), "20 steps of 2/255, start=Uniform(), the last iterate counts"),
        (
            nuat.PGD(BALL, steps=40, step_size=0.01, start=nuat.NoStart(), success_at="any"),
            "40 steps of 0.01, start=NoStart(), any iterate counts",
        ),
        (nuat.FGSM(BALL), "1 step of 8/255, start=NoStart(), the last iterate counts"),
        (
            nuat.PGD(nuat.L2(0.5), rel_step_size=StepDecay(0.5, at=(10,))),
            "20 steps of 0.25 at first, start=Uniform(), the last iterate counts",
        ),
        (nuat.PGD(BALL, rel_step_size=Constant(0.3)), "20 steps of 2.4/255, start=Uniform()"),
    ],
)
def test_a_described_attack_shows_its_step_and_its_start(attack, description):
    assert attack.describe().startswith(description)
    assert f"start={attack.start}" in repr(attack)


def test_every_attack_with_a_start_describes_it():
    for name, kind in ATTACK_CLASSES.items():
        if hasattr(kind, "start"):
            assert f"start={kind.start}" in parse_attack(name, BALL).describe()


def test_an_ensemble_describes_its_parts():
    assert parse_attack("autoattack", BALL).describe() == ""
    custom = parse_attack("custom(parts=('pgd-20', 'square-10', 'fgsm'))", BALL)
    assert custom.describe() == (
        f"pgd-20: {nuat.PGD(BALL).describe()}; fgsm: {nuat.FGSM(BALL).describe()}"
    )
