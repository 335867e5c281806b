"""Catastrophic overfitting: its detection, and the reaction of a run."""

import copy
import math
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import FGSM
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights
from nuat.data import InMemoryDataset
from nuat.methods import AT, CleanLossDrop, Free, NuAT, NuAT2, NuATH, Standard
from nuat.training.overfitting import detect_overfitting
from nuat.training.validation import validate

BALL = nuat.Linf(0.15)
VALIDATED = {"val_clean": 0.5, "val_fgsm": 0.5, "val_robust": 0.5}


def published(ball):
    """The published attack for the selection of the epoch on CIFAR-10."""
    return nuat.PGD(ball, steps=7, rel_step_size=1 / 7, start=nuat.NoStart())


def history(*pairs):
    """Metrics of epochs from (accuracy under PGD, accuracy under FGSM)."""
    return [
        {"epoch": place + 1, "val_robust": robust, "val_fgsm": fgsm}
        for place, (robust, fgsm) in enumerate(pairs)
    ]


def reports(lines):
    """The epochs at whose end catastrophic overfitting is reported."""
    return [n for n in range(1, len(lines) + 1) if detect_overfitting(lines[:n])]


# ---- detection


def test_nothing_is_reported_without_epochs_or_in_the_first_epoch():
    assert detect_overfitting([]) == ""
    assert detect_overfitting(history((0.0, 0.9))) == ""


def test_overfitting_is_reported_once_with_its_accuracies():
    lines = history((0.2, 0.3), (0.41, 0.5), (0.023, 0.87), (0.0, 0.9), (0.01, 0.88))
    assert reports(lines) == [3]
    message = detect_overfitting(lines[:3])
    for word in ("catastrophic overfitting", "epoch 3", "41.0%", "2.3%", "87.0%"):
        assert word in message


@pytest.mark.parametrize(
    ("before", "now", "fgsm", "is_one"),
    [
        (0.5, 0.25, 0.45, True),  # half, at 20 points below FGSM
        (0.5, 0.2501, 0.9, False),  # not yet half
        (0.5, 0.25, 0.4499, False),  # FGSM falls with it
        (0.5, 0.0, 0.0, False),
        (0.18, 0.0799, 0.9, True),  # 10 points
        (0.18, 0.0801, 0.9, False),  # half and less, but by less than 10 points
        (0.1, 0.0, 0.9, True),
        (0.0999, 0.0, 0.9, False),  # there was nothing to lose
    ],
)
def test_thresholds(before, now, fgsm, is_one):
    lines = history((before, before), (now, fgsm))
    assert bool(detect_overfitting(lines)) is is_one


def test_the_best_so_far_counts_and_not_the_epoch_before():
    slow = history((0.6, 0.6), (0.5, 0.7), (0.4, 0.8), (0.31, 0.9), (0.3, 0.9), (0.29, 0.9))
    assert reports(slow) == [5]


def test_overfitting_is_reported_again_after_a_recovery():
    lines = history(
        (0.5, 0.5), (0.0, 0.9), (0.1, 0.9), (0.45, 0.5), (0.5, 0.5), (0.02, 0.9), (0.0, 0.9)
    )
    assert reports(lines) == [2, 6]


def test_only_the_figures_it_needs_are_read():
    lines = [
        line | {"loss": 1.0, "catastrophic_overfitting": "before"}
        for line in history((0.5, 0.5), (0, 0.9))
    ]
    assert detect_overfitting(lines)


def test_validation_is_clean_fgsm_and_seven_steps(linear):
    f = linear(2, (1, 1, 1))
    with torch.no_grad():
        f[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        f[1].bias.copy_(torch.tensor([0.5, -0.5]))  # class 1 from 1/2 on
    x = torch.tensor([0.1, 0.4, 0.6, 0.9, 0.3]).reshape(-1, 1, 1, 1)
    images = InMemoryDataset(x, torch.tensor([0, 0, 1, 1, 1]))
    for size in (1, 2, 500):
        found = validate(f, images, published(BALL), batch_size=size)
        assert found == {"val_clean": 4 / 5, "val_fgsm": 2 / 5, "val_robust": 2 / 5}
    small = validate(f, images, published(nuat.Linf(0.05)))
    assert small == {"val_clean": 4 / 5, "val_fgsm": 4 / 5, "val_robust": 4 / 5}


class Wave(nn.Module):
    """Class 1 where a sine is positive: a step of 0.15 goes from one wave to the next."""

    def forward(self, x):
        z = (2 * math.pi / 0.2 * (x.flatten(1) - 0.5) - 0.3).sin()
        return torch.cat([-z, z], 1)


def test_a_misclassified_clean_image_is_not_robust():
    images = InMemoryDataset(torch.full((1, 1, 1, 1), 0.5), torch.tensor([1]))
    x, y = images.batch(torch.tensor([0]))
    assert Wave()(FGSM(BALL)(Wave(), x, y)).argmax() == 1, "the attack helps it"
    assert set(validate(Wave(), images, published(BALL)).values()) == {0}


def test_a_random_start_of_validation_belongs_to_the_image(linear):
    """So epochs are compared on the same noise, whatever batch size and random state."""
    images = InMemoryDataset(torch.rand(60, 3, 2, 2), torch.arange(60) % 2)
    f, attack = linear(2, (3, 2, 2)), nuat.PGD(nuat.Linf(0.3), steps=1, rel_step_size=0.1)
    with torch.no_grad():
        f[1].weight.normal_()
    found = [validate(f, images, attack, batch_size=size) for size in (1, 7, 60, 60)]
    assert found[1:] == found[:1] * 3
    assert found[0]["val_robust"] > 0


# ---- the reaction of a run


@pytest.fixture(scope="module")
def data():
    digits = nuat.load_dataset("digits")
    few = torch.arange(96)
    return replace(digits, train=digits.train.subset(few), val=digits.val.subset(few[:20]))


def row(on_overfitting, epochs=4, method=None, **changes):
    base = nuat.get_recipe("fgsm-at", "digits").with_epochs(epochs)
    changes = {"method": method or AT(FGSM(BALL)), "ema_decay": 0.5, "batch_size": 32, **changes}
    return replace(base, model="small-cnn(width=4)", on_overfitting=on_overfitting, **changes)


@dataclass
class Observed:
    """The validated weights by epoch, and every checkpoint that was written."""

    validated: dict[int, dict] = field(default_factory=dict)
    written: list[dict] = field(default_factory=list)


@pytest.fixture
def watch(monkeypatch):
    """`watch(3)`: validation returns the accuracies of catastrophic overfitting in epoch 3 alone.

    `first` is the epoch that is validated next; `kill_at` raises KeyboardInterrupt instead of
    writing the checkpoint with this number.
    """
    original = Run.save_checkpoint

    def install(*overfitting, first=1, kill_at=None):
        seen = Observed()
        epochs, saves = count(first), count(1)

        def validate(model, dataset, attack, precision, after_batch):
            epoch = next(epochs)
            seen.validated[epoch] = copy.deepcopy(model.state_dict())
            overfits = epoch in overfitting
            robust, fgsm = (0.0, 0.9) if overfits else (0.5, 0.5)
            return {"val_clean": 0.9, "val_fgsm": fgsm, "val_robust": robust}

        def save_checkpoint(run, state):
            if next(saves) == kill_at:
                raise KeyboardInterrupt
            seen.written.append(copy.deepcopy(state))
            original(run, state)

        monkeypatch.setattr("nuat.training.trainer.validate", validate)
        monkeypatch.setattr(Run, "save_checkpoint", save_checkpoint)
        return seen

    return install


def weights(run, name):
    return read_weights(run.path / f"{name}.safetensors")[0]


STATE = ("model", "optimizer", "emas", "memory")


def train_state(state):
    """The part of a checkpoint that a rollback restores."""
    return {key: state[key] for key in STATE}


def good(run):
    return train_state(torch.load(run.path / "good.pt", weights_only=True))


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def overfitting_epochs(run):
    return [line["epoch"] for line in run.metrics if "catastrophic_overfitting" in line]


TIMED = ("seconds", "metrics", "checksum")
"""Entries of a checkpoint that depend on the time taken."""


def outcome(run):
    """All that must be equal of two runs."""
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)
    untimed = [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics]
    return {
        "model": weights(run, "model"),
        "last": weights(run, "last"),
        "checkpoint": {k: v for k, v in state.items() if k not in TIMED},
        "metrics": untimed,
    }


def test_warn_prints_a_warning_and_changes_nothing(data, watch, tmp_path, capsys):
    watch()
    calm = nuat.fit(row("warn"), data=data, out=tmp_path / "calm")
    assert overfitting_epochs(calm) == [] and "WARNING" not in capsys.readouterr().out
    watch(3)
    run = nuat.fit(row("warn"), data=data, out=tmp_path / "run")
    assert run.finished and len(run.metrics) == 4
    assert overfitting_epochs(run) == [3]
    message = run.metrics[2]["catastrophic_overfitting"]
    assert "catastrophic overfitting in epoch 3" in message
    assert f"WARNING: {message} (on_overfitting=warn)" in capsys.readouterr().out
    assert equal(weights(run, "last"), weights(calm, "last"))
    assert not (run.path / "good.pt").exists()


def test_stop_ends_the_run_with_the_weights_from_before(data, watch, tmp_path):
    seen = watch(3)
    f = nuat.models.model_registry["small-cnn"](classes=10, channels=1, width=4)
    run = nuat.fit(row("stop"), model=f, data=data, out=tmp_path / "run")
    assert run.finished
    assert [line.get("stopped", False) for line in run.metrics] == [False, False, True]
    assert overfitting_epochs(run) == [3]
    assert equal(weights(run, "last"), dict(seen.validated[2]))
    assert not equal(weights(run, "last"), dict(seen.validated[3]))
    assert equal(weights(run, "model"), dict(seen.validated[1])), "the first of the best epochs"
    assert equal(dict(f.state_dict()), weights(run, "model"))

    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    again = nuat.fit(row("stop"), model=f, data=data, out=tmp_path / "run")
    assert again.finished
    assert before == {file.name: file.read_bytes() for file in run.path.iterdir()}


METHODS = {
    "at": AT(FGSM(BALL)),
    "free": Free(BALL, replays=2),  # keeps a perturbation in its memory
    "nuat2-wa": NuAT2(BALL, attack_ema_decay=0.9),  # a second average takes part in the attack
    "nuat-h": NuATH(NuAT(BALL), NuAT2(BALL), CleanLossDrop(short=1, warmup=2, drop=-1, hold=2)),
}


def test_the_earliest_of_equally_robust_epochs_is_kept(data, tmp_path, monkeypatch):
    """Whatever its clean accuracy is. Standard training has another rule, of ours."""
    series = [(0.5, 0.2), (0.7, 0.3), (0.7, 0.9), (0.6, 0.1), (0.7, 0.9)]
    for method, best in ((METHODS["at"], 2), (Standard(), 3)):
        epochs, seen = iter(series), []

        def validate(
            model, dataset, attack, precision, after_batch, epochs=epochs, seen=seen, method=method
        ):
            seen.append(copy.deepcopy(model.state_dict()))
            first, second = next(epochs)
            clean, robust = (first, second) if method == Standard() else (second, first)
            return {"val_clean": clean, "val_fgsm": robust, "val_robust": robust}

        monkeypatch.setattr("nuat.training.trainer.validate", validate)
        run = nuat.fit(row("warn", epochs=5, method=method), data=data, out=tmp_path / str(best))
        assert [equal(weights(run, "model"), dict(state)) for state in seen].index(True) == best - 1


def test_a_recipe_names_its_validation_attack(data, tmp_path, monkeypatch):
    attacks = []
    monkeypatch.setattr(
        "nuat.training.trainer.validate",
        lambda model, dataset, attack, *rest, **options: attacks.append(attack) or VALIDATED,
    )
    recipe = row("warn", epochs=1).with_threat_model(nuat.Linf(0.1))
    nuat.fit(recipe, data=data, out=tmp_path / "published")
    changed = recipe.with_override("validation_attack", "pgd-20(rel_step_size=1/8)")
    nuat.fit(changed, data=data, out=tmp_path / "changed")
    assert attacks == [
        published(nuat.Linf(0.1)),
        nuat.PGD(nuat.Linf(0.1), steps=20, rel_step_size=1 / 8),
    ]
    for text, message in (("pgd-0", "steps is 0"), ("pgdd", "pgdd"), ("autoattack", "single")):
        with pytest.raises(nuat.InputError, match=message):
            recipe.with_override("validation_attack", text)


@pytest.mark.parametrize("name", METHODS)
def test_rollback_restores_the_state_of_the_last_good_epoch(data, watch, tmp_path, name):
    seen = watch(3)
    run = nuat.fit(row("rollback", method=METHODS[name]), data=data, out=tmp_path / "run")
    assert run.finished and [line["epoch"] for line in run.metrics] == [1, 2, 3, 4]
    assert overfitting_epochs(run) == [3]
    one, two, three, four = seen.written
    assert [state["epoch"] for state in seen.written] == [1, 2, 3, 4]
    for part in STATE:
        assert equal(three[part], two[part]), part
    if name != "at":
        assert two["memory"] or len(two["emas"]) == 2
    assert not equal(one["model"], two["model"])
    assert not equal(dict(seen.validated[3]), dict(seen.validated[2]))
    assert not equal(four["model"], three["model"]), "training continues"
    assert equal(good(run), train_state(four))
    assert equal(weights(run, "last"), dict(seen.validated[4]))


def test_rollback_saves_the_weights_from_before_as_the_last(data, watch, tmp_path):
    seen = watch(2)
    run = nuat.fit(row("rollback", epochs=2), data=data, out=tmp_path / "run")
    assert run.finished
    assert equal(weights(run, "last"), dict(seen.validated[1]))


def test_rollback_restores_the_newest_good_epoch(data, watch, tmp_path):
    seen = watch(2, 5)
    run = nuat.fit(row("rollback", epochs=5), data=data, out=tmp_path / "run")
    assert overfitting_epochs(run) == [2, 5]
    assert equal(train_state(seen.written[1]), train_state(seen.written[0]))
    assert equal(train_state(seen.written[4]), train_state(seen.written[3]))
    assert not equal(train_state(seen.written[4]), train_state(seen.written[0]))


def test_rollback_twice_in_a_row(data, watch, tmp_path):
    """After a rollback, overfitting in the next epoch is reported as a new event."""
    seen = watch(3, 4)
    run = nuat.fit(row("rollback", epochs=5), data=data, out=tmp_path / "run")
    assert overfitting_epochs(run) == [3, 4]
    assert equal(train_state(seen.written[3]), train_state(seen.written[1]))


def test_an_overfitting_state_is_never_saved_as_good(data, watch, tmp_path):
    seen = watch(3, 4)
    run = nuat.fit(row("rollback", epochs=4), data=data, out=tmp_path / "run")
    assert equal(good(run), train_state(seen.written[1]))


def test_a_method_without_a_threat_model_is_not_checked(data, watch, tmp_path):
    for answer in ("stop", "rollback"):
        watch(3)
        run = nuat.fit(row(answer, method=Standard()), data=data, out=tmp_path / answer)
        assert run.finished and len(run.metrics) == 4 and overfitting_epochs(run) == []


def stop_after(monkeypatch, batches):
    steps = iter(range(batches))
    up = property(lambda self: next(steps, None) is None)
    monkeypatch.setattr("nuat.training.trainer.Trainer.time_is_up", up)


@pytest.mark.parametrize("name", ["free", "nuat2-wa"])
def test_stopped_anywhere_a_run_that_rolls_back_ends_bit_equal(
    data, watch, tmp_path, monkeypatch, name
):
    recipe = row("rollback", method=METHODS[name])
    watch(3)
    whole = nuat.fit(recipe, data=data, out=tmp_path / "whole")
    assert overfitting_epochs(whole) == [3]
    # 3 batches per epoch: stop in the overfitting epoch, after it and after the next one
    for batches, first in ((7, 1), (1, 3), (1, 3), (1, 4)):
        watch(3, first=first)
        stop_after(monkeypatch, batches)
        run = nuat.fit(recipe, data=data, out=tmp_path / "stopped", max_time=1)
        assert not run.finished
    monkeypatch.undo()
    watch(3, first=4)
    run = nuat.fit(recipe, data=data, out=tmp_path / "stopped")
    assert run.finished
    assert equal(outcome(run), outcome(whole))


@pytest.mark.parametrize("answer", ["rollback", "stop"])
@pytest.mark.parametrize("killed_in", [1, 2, 3])
def test_killed_before_the_checkpoint_of_an_epoch_ends_bit_equal(
    data, watch, tmp_path, answer, killed_in
):
    recipe = row(answer, method=METHODS["free"])
    watch(3)
    whole = nuat.fit(recipe, data=data, out=tmp_path / "whole")
    watch(3, kill_at=killed_in)
    with pytest.raises(KeyboardInterrupt):
        nuat.fit(recipe, data=data, out=tmp_path / "killed")
    assert len(Run.open(tmp_path / "killed").metrics) == killed_in
    watch(3, first=killed_in)
    run = nuat.fit(recipe, data=data, out=tmp_path / "killed")
    assert equal(outcome(run), outcome(whole))


@pytest.mark.parametrize("answer", ["explode", "roll back", "", "Stop"])
def test_an_unknown_reaction_is_refused(answer):
    with pytest.raises(nuat.InputError, match=r"on_overfitting .*rollback, stop, warn"):
        row(answer)
    with pytest.raises(nuat.InputError, match=r"on_overfitting .*rollback, stop, warn"):
        row("warn").with_override("on_overfitting", answer)
