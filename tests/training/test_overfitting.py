"""Catastrophic overfitting: what counts as one, and what a run does about it."""

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
from nuat.training.overfitting import detect_overfitting, validate

BALL = nuat.Linf(0.15)


def history(*pairs):
    """Metrics of epochs from (accuracy under PGD, accuracy under FGSM)."""
    return [
        {"epoch": place + 1, "val_robust": robust, "val_fgsm": fgsm}
        for place, (robust, fgsm) in enumerate(pairs)
    ]


def reports(lines):
    """The epochs whose line, when it was the last, was said to be a collapse."""
    return [n for n in range(1, len(lines) + 1) if detect_overfitting(lines[:n])]


# what counts


def test_nothing_is_said_of_nothing_or_of_a_first_epoch():
    assert detect_overfitting([]) == ""
    assert detect_overfitting(history((0.0, 0.9))) == ""


def test_a_collapse_is_said_once_and_in_figures():
    lines = history((0.2, 0.3), (0.41, 0.5), (0.023, 0.87), (0.0, 0.9), (0.01, 0.88))
    assert reports(lines) == [3]
    said = detect_overfitting(lines[:3])
    for word in ("catastrophic overfitting", "epoch 3", "41.0%", "2.3%", "87.0%"):
        assert word in said


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


def test_after_a_recovery_it_is_said_again():
    lines = history(
        (0.5, 0.5), (0.0, 0.9), (0.1, 0.9), (0.45, 0.5), (0.5, 0.5), (0.02, 0.9), (0.0, 0.9)
    )
    assert reports(lines) == [2, 6]


def test_only_the_figures_it_needs_are_read():
    lines = [line | {"loss": 1.0, "collapse": "before"} for line in history((0.5, 0.5), (0, 0.9))]
    assert detect_overfitting(lines)


def test_validation_is_clean_fgsm_and_seven_steps(linear):
    f = linear(2, (1, 1, 1))
    with torch.no_grad():
        f[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        f[1].bias.copy_(torch.tensor([0.5, -0.5]))  # class 1 from 1/2 on
    x = torch.tensor([0.1, 0.4, 0.6, 0.9, 0.3]).reshape(-1, 1, 1, 1)
    images = InMemoryDataset(x, torch.tensor([0, 0, 1, 1, 1]))
    for size in (1, 2, 500):
        found = validate(f, images, BALL, batch_size=size)
        assert found == {"val_clean": 4 / 5, "val_fgsm": 2 / 5, "val_robust": 2 / 5}
    small = validate(f, images, nuat.Linf(0.05))
    assert small == {"val_clean": 4 / 5, "val_fgsm": 4 / 5, "val_robust": 4 / 5}


class Wave(nn.Module):
    """Class 1 where a sine is positive: a step of 0.15 goes from one wave to the next."""

    def forward(self, x):
        z = (2 * math.pi / 0.2 * (x.flatten(1) - 0.5) - 0.3).sin()
        return torch.cat([-z, z], 1)


def test_what_is_wrong_on_the_clean_image_does_not_stand_under_an_attack():
    images = InMemoryDataset(torch.full((1, 1, 1, 1), 0.5), torch.tensor([1]))
    x, y = images.batch(torch.tensor([0]))
    assert Wave()(FGSM(BALL)(Wave(), x, y)).argmax() == 1, "the attack helps it"
    assert set(validate(Wave(), images, BALL).values()) == {0}


# what a run does


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
class TimedModel:
    """What a run looked like: `validated` networks by epoch, and each state it wrote down."""

    validated: dict[int, dict] = field(default_factory=dict)
    written: list[dict] = field(default_factory=list)


@pytest.fixture
def watch(monkeypatch):
    """`watch(3)`: validation finds that epoch 3 has detect_overfitting, and the others have not.

    `first` is the epoch that is validated next; `kill_at` raises in place of the checkpoint with
    this number, as a kill would.
    """
    original = Run.save_checkpoint

    def install(*collapsed_epochs, first=1, kill_at=None):
        seen = TimedModel()
        epochs, saves = count(first), count(1)

        def validate(f, images, ball):
            epoch = next(epochs)
            seen.validated[epoch] = copy.deepcopy(f.state_dict())
            fallen = epoch in collapsed_epochs
            robust, fgsm = (0.0, 0.9) if fallen else (0.5, 0.5)
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


MADE = ("network", "optimizer", "averages", "memory")


def made(state):
    """What training has made, without its place in the run."""
    return {key: state[key] for key in MADE}


def good(run):
    return torch.load(run.path / "good.pt", weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def collapses(run):
    return [line["epoch"] for line in run.metrics if "collapse" in line]


def outcome(run):
    """All that must be equal of two runs."""
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)
    untimed = [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics]
    return {
        "model": weights(run, "model"),
        "last": weights(run, "last"),
        "checkpoint": {k: v for k, v in state.items() if k != "seconds"},
        "metrics": untimed,
    }


def test_warn_says_so_and_changes_nothing(data, watch, tmp_path, capsys):
    watch()
    calm = nuat.fit(row("warn"), data=data, out=tmp_path / "calm")
    assert collapses(calm) == [] and "WARNING" not in capsys.readouterr().out
    watch(3)
    run = nuat.fit(row("warn"), data=data, out=tmp_path / "run")
    assert run.finished and len(run.metrics) == 4
    assert collapses(run) == [3]
    said = run.metrics[2]["collapse"]
    assert "catastrophic overfitting in epoch 3" in said
    assert f"WARNING: {said} (on_overfitting=warn)" in capsys.readouterr().out
    assert equal(weights(run, "last"), weights(calm, "last"))
    assert not (run.path / "good.pt").exists()


def test_stop_ends_the_run_with_the_weights_of_before(data, watch, tmp_path):
    seen = watch(3)
    f = nuat.models.model_registry["small-cnn"](classes=10, channels=1, width=4)
    run = nuat.fit(row("stop"), model=f, data=data, out=tmp_path / "run")
    assert run.finished
    assert [line.get("stopped", False) for line in run.metrics] == [False, False, True]
    assert collapses(run) == [3]
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


@pytest.mark.parametrize("name", METHODS)
def test_rollback_brings_back_all_of_the_last_good_epoch(data, watch, tmp_path, name):
    seen = watch(3)
    run = nuat.fit(row("rollback", method=METHODS[name]), data=data, out=tmp_path / "run")
    assert run.finished and [line["epoch"] for line in run.metrics] == [1, 2, 3, 4]
    assert collapses(run) == [3]
    one, two, three, four = seen.written
    assert [state["epoch"] for state in seen.written] == [1, 2, 3, 4]
    for part in MADE:
        assert equal(three[part], two[part]), part
    if name != "at":
        assert two["memory"] or len(two["averages"]) == 2
    assert not equal(one["network"], two["network"])
    assert not equal(dict(seen.validated[3]), dict(seen.validated[2]))
    assert not equal(four["network"], three["network"]), "it goes on"
    assert equal(good(run), made(four))
    assert equal(weights(run, "last"), dict(seen.validated[4]))


def test_rollback_writes_the_weights_of_before_as_the_last(data, watch, tmp_path):
    seen = watch(2)
    run = nuat.fit(row("rollback", epochs=2), data=data, out=tmp_path / "run")
    assert run.finished
    assert equal(weights(run, "last"), dict(seen.validated[1]))


def test_rollback_goes_to_the_newest_good_epoch(data, watch, tmp_path):
    seen = watch(2, 5)
    run = nuat.fit(row("rollback", epochs=5), data=data, out=tmp_path / "run")
    assert collapses(run) == [2, 5]
    assert equal(made(seen.written[1]), made(seen.written[0]))
    assert equal(made(seen.written[4]), made(seen.written[3]))
    assert not equal(made(seen.written[4]), made(seen.written[0]))


def test_rollback_also_from_a_second_collapse_in_a_row(data, watch, tmp_path):
    """After a rollback the run is good again: what collapses next has detect_overfitting anew."""
    seen = watch(3, 4)
    run = nuat.fit(row("rollback", epochs=5), data=data, out=tmp_path / "run")
    assert collapses(run) == [3, 4]
    assert equal(made(seen.written[3]), made(seen.written[1]))


def test_a_collapsed_state_is_never_kept_as_a_good_one(data, watch, tmp_path):
    seen = watch(3, 4)
    run = nuat.fit(row("rollback", epochs=4), data=data, out=tmp_path / "run")
    assert equal(good(run), made(seen.written[1]))


def test_a_method_without_a_threat_model_cannot_collapse(data, watch, tmp_path):
    for answer in ("stop", "rollback"):
        watch(3)
        run = nuat.fit(row(answer, method=Standard()), data=data, out=tmp_path / answer)
        assert run.finished and len(run.metrics) == 4 and collapses(run) == []


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
    assert collapses(whole) == [3]
    # 3 batches an epoch: in the epoch that collapses, after it, and after the one that follows
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
def test_an_unknown_answer_is_refused(answer):
    with pytest.raises(nuat.InputError, match=r"answer to a collapse .*rollback, stop, warn"):
        row(answer)
    with pytest.raises(nuat.InputError, match=r"answer to a collapse .*rollback, stop, warn"):
        row("warn").with_override("on_overfitting", answer)
