"""Recipes are values: with other epochs, another threat model, other settings."""

import dataclasses
import json
import re
from dataclasses import dataclass, replace

import pytest

import nuat
from nuat import Constant, InputError, LinearRamp, Linf, Piecewise
from nuat.attacks import FGSM, PGD
from nuat.config.serialization import to_dict
from nuat.methods import AT, AWP, TRADES, Method, NuAT, NuAT2, NuATH
from nuat.recipes import registry
from nuat.schedules import Schedule, StartAt, StepDecay
from nuat.threat_models import L2, Ball

every = pytest.mark.parametrize(
    "row", nuat.list_recipes(), ids=lambda row: f"{row.name}/{row.data}"
)
HYBRID = NuATH(NuAT(Linf(0.1), LinearRamp(4.0, 40)), NuAT2(Linf(0.1), LinearRamp(2.0, 20)))


def everywhere(value, kind):
    """Every instance of a class in a value and its fields, with its path."""
    found = []

    def look(part, path):
        if isinstance(part, kind):
            found.append((path, part))
        if dataclasses.is_dataclass(part):
            for field in dataclasses.fields(part):
                look(getattr(part, field.name), f"{path}.{field.name}")
        if isinstance(part, tuple):
            for place, item in enumerate(part):
                look(item, f"{path}[{place}]")

    look(value, "")
    return found


def over_time(row):
    """The schedules that are functions of the epoch: those of the engine and of the methods."""
    return [
        (path, schedule)
        for path, schedule in everywhere(row, Schedule)
        if not path.endswith(".rel_step_size")  # of an attack's step, not of the epoch
    ]


# with_epochs


@every
@pytest.mark.parametrize("factor", [0.5, 3])
def test_with_epochs_rescales_every_schedule(row, factor):
    epochs = max(1, round(row.epochs * factor))
    factor = epochs / row.epochs
    longer = row.with_epochs(epochs)
    assert longer.epochs == epochs
    pairs = list(zip(over_time(row), over_time(longer), strict=True))
    assert len(pairs) >= 2
    for (path, old), (other, new) in pairs:
        assert path == other and type(old) is type(new)
        for epoch in (0, 0.3, 1, row.epochs / 2, row.epochs * 0.9, row.epochs):
            assert new((epoch + 1e-6) * factor) == pytest.approx(old(epoch + 1e-6), rel=1e-4), path
    rest = {"epochs", "lr", "momentum", "method", "ema_decay"}
    for field in dataclasses.fields(row):
        if field.name not in rest:
            assert getattr(longer, field.name) == getattr(row, field.name)


def test_with_epochs_keeps_the_share_of_the_first_weights_in_the_average():
    row = nuat.get_recipe("nuat-wa", "mnist")
    shorter = row.with_epochs(10)
    assert shorter.ema_decay**10 == pytest.approx(row.ema_decay**row.epochs)
    assert nuat.get_recipe("nuat", "mnist").with_epochs(10).ema_decay is None


def test_with_epochs_reaches_both_methods_of_a_hybrid_and_what_awp_is_around():
    row = nuat.get_recipe("nuat-h", "digits")
    row = replace(row, method=HYBRID).with_epochs(row.epochs * 2)
    assert row.method.single_step.lam == LinearRamp(
        4.0, 80
    ) and row.method.two_step.lam == LinearRamp(2.0, 40)
    around = AWP(TRADES(beta=StepDecay(6.0, at=(10,))), gamma=StartAt(0.005, epoch=4))
    row = replace(row, epochs=10, method=around).with_epochs(5)
    assert row.method.base.beta == StepDecay(6.0, at=(5,)) and row.method.gamma == StartAt(0.005, 2)


def test_with_epochs_leaves_the_steps_of_an_attack():
    attack = PGD(Linf(0.1), rel_step_size=StepDecay(0.5, at=(10,)))
    row = replace(nuat.get_recipe("pgd-at", "digits"), method=AT(attack))
    assert row.with_epochs(5).method.inner == attack


def test_with_epochs_back_is_the_same_recipe():
    row = nuat.get_recipe("nuat-wa-h", "digits")
    assert row.with_epochs(row.epochs) == row
    back = row.with_epochs(row.epochs * 4).with_epochs(row.epochs)
    assert back.ema_decay == pytest.approx(row.ema_decay)
    assert replace(back, ema_decay=row.ema_decay) == row


@pytest.mark.parametrize("epochs", [0, -1, 1.5])
def test_no_or_half_an_epoch_is_refused(epochs):
    with pytest.raises(InputError, match="epochs is"):
        nuat.get_recipe("nuat", "digits").with_epochs(epochs)
    with pytest.raises(InputError, match="epochs is"):
        replace(nuat.get_recipe("nuat", "digits"), epochs=epochs)


# with_threat_model


@every
@pytest.mark.parametrize("ball", [Linf(0.01), L2(0.5)], ids=str)
def test_with_threat_model_changes_every_ball_and_nothing_else(row, ball):
    changed = row.with_threat_model(ball)
    places = everywhere(row, Ball)
    assert [path for path, _ in places] == [path for path, _ in everywhere(changed, Ball)]
    assert {found for _, found in everywhere(changed, Ball)} == {ball}
    assert (".ball" in dict(places)) and (row.name.startswith("normal") or len(places) > 1)
    back = changed.with_threat_model(row.ball)
    if {found for _, found in places} == {row.ball}:
        assert back == row
    assert changed.method.threat_model in (ball, None)


def test_with_threat_model_reaches_the_parts_of_parts():
    row = replace(nuat.get_recipe("nuat-h", "digits"), method=HYBRID).with_threat_model(Linf(0.02))
    assert row.method.single_step.ball == row.method.two_step.ball == Linf(0.02)
    row = replace(row, method=AWP(AT(PGD(Linf(0.3))))).with_threat_model(Linf(0.02))
    assert row.method.base.inner.ball == row.ball == Linf(0.02)


# with_override


def test_a_field_of_the_recipe_or_else_of_its_method():
    row = nuat.get_recipe("nuat-wa", "digits")
    assert row.with_override("batch_size", "32").batch_size == 32
    assert row.with_override("lam.to", "9").method.lam == replace(row.method.lam, to=9.0)
    assert row.with_override("method.lam.to", "9") == row.with_override("lam.to", "9")
    assert row.with_override("lam", "2").method.lam == Constant(2.0)
    assert row.with_override("ema_decay", "None").ema_decay is None
    assert row.with_override("ema_decay", "0.5").ema_decay == 0.5
    assert row.with_override("model", "resnet18").model == "resnet18"
    assert row.with_override("lr", "0.1").lr == Constant(0.1)
    assert row.with_override("lr", "Piecewise(((0, 0), (3, 1/2)))").lr == Piecewise(
        ((0, 0), (3, 0.5))
    )
    assert row.with_override("augment.flip", "True").augment.flip is True
    changed = row.with_override("distance", "frobenius").with_override("start", "Uniform()")
    assert (
        changed.method.distance.__name__ == "frobenius" and changed.method.start == nuat.Uniform()
    )
    assert row == nuat.get_recipe("nuat-wa", "digits"), "the row itself stays"


def test_fields_of_parts_of_parts():
    row = replace(nuat.get_recipe("nuat-h", "digits"), method=HYBRID)
    assert row.with_override("single_step.lam.to", "9").method == replace(
        HYBRID, single_step=replace(HYBRID.single_step, lam=LinearRamp(9.0, 40))
    )
    assert row.with_override("trigger.hold", "7").method.trigger.hold == 7
    row = replace(row, method=AWP(AT(PGD(Linf(0.1)))))
    assert row.with_override("base.inner.steps", "3").method.base.inner.steps == 3
    assert row.with_override(
        "base.inner.rel_step_size", "1/2"
    ).method.base.inner.rel_step_size == Constant(0.5)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("lamb", "3", r"field of the recipe or of NuAT 'lamb'; did you mean 'lam'\?"),
        ("lam.too", "3", r"field of LinearRamp 'too'; did you mean 'to'\?"),
        ("lam.to.x", "3", r"cannot set method\.lam\.to\.x"),
        ("lam", "Uniform()", "takes a Schedule .*, not Uniform"),
        ("lam.to", "True", "takes a number, not True"),
        ("batch_size", "64.5", "takes a whole number"),
        ("batch_size", "-4", "batch_size is -4"),
        ("ball", "Linf(0.1)", "--eps and --norm"),
        ("ball.eps", "0.1", "--eps and --norm"),
        ("method.ball.eps", "0.1", "--eps and --norm"),
        ("epochs", "3", "--epochs"),
        ("", "3", "unknown field"),
        ("lam.", "3", "unknown field"),
        ("method", "NuAT", "takes a Method .*, not NuAT"),
        ("double_bn_update", "3", "takes True or False, not 3"),
    ],
)
def test_what_cannot_be_set_is_named(path, text, message):
    with pytest.raises(InputError, match=message):
        nuat.get_recipe("nuat", "digits").with_override(path, text)


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("pgd-at", "inner", "PGD(steps=2)"),
        ("pgd-at", "method", "NuAT()"),
        ("awp", "base", "AT(PGD(steps=2))"),
        ("nuat-h", "single_step", "NuAT(lam=3)"),
    ],
)
def test_a_value_gets_the_threat_model_of_the_recipe(name, path, text):
    """Or it is refused; it must not silently train at the default eps of the attack."""
    row = nuat.get_recipe(name, "digits")
    try:
        changed = row.with_override(path, text)
    except InputError as error:
        assert "ball" in str(error) or "--eps" in str(error)
    else:
        assert {ball for _, ball in everywhere(changed, Ball)} == {row.ball}


@pytest.mark.parametrize("text", ["PGD(0.3)", "PGD(ball=0.3)", "FGSM(8/255)"])
def test_a_number_is_no_ball(text):
    with pytest.raises(InputError, match=r"ball|--eps"):
        nuat.get_recipe("pgd-at", "digits").with_override("inner", text)


def test_an_override_leaves_every_ball():
    """TRADES on CIFAR-10 is trained at 0.031 and evaluated at 8/255."""
    row = nuat.get_recipe("trades", "cifar10")
    changed = row.with_override("beta", "3").with_override("batch_size", "32")
    assert everywhere(changed, Ball) == everywhere(row, Ball)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("weight_decay", "-1", "weight_decay is -1"),
        ("ema_decay", "1.5", "ema_decay is 1.5"),
        ("ema_decay", "-0.1", "ema_decay is -0.1"),
        ("augment", "Augment(pad=-1)", "pad is -1"),
        ("lr", "-1", "lr is .* negative"),
        ("batch_size", "True", "batch_size is .* takes a whole number, not True"),
    ],
)
def test_values_that_no_run_can_have_are_refused(path, text, message):
    with pytest.raises(InputError, match=message):
        nuat.get_recipe("nuat", "digits").with_override(path, text)


# the table


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(registry, "_table", dict(registry._table))


def test_a_row_is_registered_once_for_a_data_set(fresh):
    row = replace(nuat.get_recipe("nuat", "digits"), name="mine")
    assert nuat.register_recipe(row) is row
    assert nuat.get_recipe("mine", "digits") is row and nuat.list_recipes()[-1] is row
    with pytest.raises(InputError, match="already a recipe 'mine' for 'digits'"):
        nuat.register_recipe(replace(row, note="another"))
    assert nuat.get_recipe("mine", "digits") is row
    other = nuat.register_recipe(replace(row, data="mnist"))
    assert nuat.get_recipe("mine", "mnist") is other
    assert nuat.get_recipe("mine", "mnist(size=3)") is other, "whatever its settings"
    with pytest.raises(InputError, match=r"unknown data set for 'mine' 'cifar10'.*digits, mnist"):
        nuat.get_recipe("mine", "cifar10")


def test_a_data_set_that_is_nearly_right_is_suggested():
    with pytest.raises(InputError, match=r"did you mean 'digits'\?"):
        nuat.get_recipe("nuat", "digit")


@every
def test_every_row_is_fit_to_be_run(row):
    assert (
        row.model in nuat.models.model_registry
        or row.model.split("(")[0] in nuat.models.model_registry
    )
    assert json.loads(json.dumps(to_dict(row)))["name"] == row.name
    assert row.source in ("published code", "paper", "talk", "ours")
    assert hash(row) == hash(replace(row)) and row == replace(row)
    assert row.lr(0.5) > 0 and row.lr(row.epochs - 0.5) > 0
    assert 0 <= row.momentum(row.epochs / 2) < 1
    assert row.ema_decay is None or 0 < row.ema_decay < 1
    assert ("-wa" in row.name) == (row.ema_decay is not None)


@every
def test_validation_and_training_use_the_same_threat_model(row):
    """Except for TRADES and MART on CIFAR-10, which their authors train at 0.031."""
    balls = {ball for _, ball in everywhere(row.method, Ball)}
    if row.data == "cifar10" and row.name in ("trades", "trades-wa", "mart"):
        assert balls == {Linf(0.031)}
    else:
        assert balls <= {row.ball}


def test_every_row_has_a_data_set_to_run_on():
    without_recipes = {"folder", "npz"}
    assert {row.data for row in nuat.list_recipes()} == set(
        nuat.data.dataset_registry
    ) - without_recipes


@dataclass(frozen=True)
class Mine(Method):
    """A method with an attack of its own and a schedule."""

    inner: FGSM = FGSM(Linf(0.1))
    lam: Schedule = LinearRamp(1.0, epochs=10)


def test_a_method_of_the_user_is_rescaled_and_gets_a_threat_model_too():
    row = replace(nuat.get_recipe("nuat", "digits"), epochs=10, method=Mine(lam=3))
    assert row.method.lam == Constant(3.0)
    row = replace(row, method=Mine()).with_threat_model(Linf(0.2)).with_epochs(20)
    assert row.method == Mine(FGSM(Linf(0.2)), LinearRamp(1.0, epochs=20))
    assert row.method.threat_model == Linf(0.2)


@pytest.mark.parametrize("given", ["yes", 1, 0, "False"])
def test_channels_last_is_true_false_or_none(given: object) -> None:
    with pytest.raises(InputError, match=r"channels_last is .*must be True, False or None"):
        replace(nuat.get_recipe("nuat", "digits"), channels_last=given)


def test_a_choice_of_no_text_is_refused_in_words() -> None:
    for name in ("precision", "on_overfitting"):
        with pytest.raises(InputError, match=r"unknown .* None \(there are: "):
            replace(nuat.get_recipe("nuat", "digits"), **{name: None})


@pytest.mark.parametrize(
    ("decay", "epochs", "note"),
    [
        (
            0.9998,
            15,
            "after the 1410 steps .*will hold 75% of the first.*ema_decay=0.993",
        ),
        (0.9998, 100, "will hold 15% .*ema_decay=0.999 suits"),
        (0.98, 15, ""),
        (None, 1, ""),
    ],
)
def test_an_average_that_is_longer_than_the_run_is_noted(decay, epochs, note):
    recipe = replace(nuat.get_recipe("nuat", "mnist"), ema_decay=decay, epochs=epochs)
    found = recipe.ema_note(6000)
    assert re.search(note, found) if note else not found


def test_no_published_row_has_such_an_average():
    images = {"cifar10": 49_000, "mnist": 50_000, "digits": 1000, "imagenet100": 120_000}
    for recipe in nuat.list_recipes():
        if recipe.data in images:
            assert not recipe.ema_note(images[recipe.data]), recipe.name
