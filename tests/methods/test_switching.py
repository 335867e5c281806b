"""When NuAT-H takes two steps, that they are the right ones, and that a resume changes nothing."""

import math
import random
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import PGD, correct
from nuat.checkpoints.weights_io import read_weights
from nuat.methods import (
    Always,
    CleanLossDrop,
    NuAT,
    NuAT2,
    NuATH,
    RobustnessDrop,
    Share,
    StepContext,
    Trigger,
)
from nuat.nn.ema import EMAs
from nuat.recipes.recipe import CONFIG_NAMES
from nuat.report import write_page
from nuat.schedules import Constant

BALL = nuat.Linf(0.15)
QUICK = CleanLossDrop(short=5, long=50, warm=10, drop=0.25, hold=12, quiet=30)


def drive(trigger, losses, lr=0.1, memory=None, batches=10**6):
    """The places of the two-step batches in a run whose clean losses are these."""
    memory = {} if memory is None else memory
    two = []
    for place, loss in enumerate(losses):
        rate = lr(place) if callable(lr) else lr
        t = StepContext(place // batches, place % batches, batches, lr=rate, memory=memory)
        stepped = trigger.wants_two(None, None, None, t)
        two += [place] if stepped else []
        t.note(clean_loss=torch.tensor(loss), two_step=float(stepped))
        trigger.observe(t)
    return two


def noisy(losses, spread=0.1, seed=0):
    generator = random.Random(seed)
    return [loss * (1 + generator.uniform(-spread, spread)) for loss in losses]


# a drop of the clean loss


def test_a_sudden_drop_is_answered_by_exactly_so_many_two_step_batches():
    memory = {}
    two = drive(QUICK, [1.0] * 100 + [0.3] * 20, memory=memory)
    assert 100 < two[0] <= 100 + QUICK.short
    assert two == list(range(two[0], two[0] + QUICK.hold))
    assert memory["marks"]["two_step"] == [[0, two[0] - 1]], "the batch that showed it"


def test_it_fires_at_the_first_batch_at_which_the_short_mean_is_low_enough():
    losses = noisy([1.0] * 60 + [0.6] * 40)
    expected, short, long = None, 0.0, 0.0
    for place, loss in enumerate(losses, 1):
        short += (loss - short) / min(place, QUICK.short)
        long += (loss - long) / min(place, QUICK.long)
        if expected is None and place > 60 and short < 0.75 * long:
            expected = place  # counted from 1: the place after this batch
    assert drive(QUICK, losses)[0] == expected


@pytest.mark.parametrize("drop", [0.1, 0.25, 0.5])
def test_the_fall_that_counts(drop):
    trigger = replace(QUICK, drop=drop, long=10**6)
    barely, enough = 1 - 0.95 * drop, 1 - 1.3 * drop
    assert drive(trigger, [1.0] * 1000 + [barely] * 60) == []
    assert drive(trigger, [1.0] * 1000 + [enough] * 60)


def test_a_slow_decline_a_rise_and_noise_are_no_drop():
    trigger = CleanLossDrop()
    assert drive(trigger, noisy([2.0 * math.exp(-i / 1500) for i in range(4000)])) == []
    assert drive(trigger, noisy([0.5 + i / 1000 for i in range(2000)])) == []
    assert drive(trigger, noisy([1.0] * 2000, spread=0.4)) == []


def test_nothing_is_said_before_there_is_something_to_compare():
    losses = [1.0] * QUICK.short + [0.0] * QUICK.short
    assert drive(QUICK, losses[:-1]) == []
    assert drive(QUICK, [*losses, 0.0])[0] == 2 * QUICK.short


def test_after_the_hold_the_means_begin_anew():
    losses = [1.0] * 100 + [0.3] * 200
    two = drive(QUICK, losses)
    assert len(two) == QUICK.hold, "0.3 is the new level, and no drop of itself"
    again = drive(QUICK, losses + [0.1] * 30)
    assert len(again) == 2 * QUICK.hold
    assert 300 < again[QUICK.hold] <= 300 + QUICK.short


@pytest.mark.parametrize("hold", [1, 2, 3, 12])
def test_only_single_step_batches_are_in_the_means(hold):
    """Batches of the two-step attack have losses of their own, here 100: they must not count."""
    trigger = replace(QUICK, hold=hold)
    memory, two = {}, []
    for place in range(200):
        t = StepContext(0, place, lr=0.1, memory=memory)
        stepped = trigger.wants_two(None, None, None, t)
        two += [place] if stepped else []
        single = 1.0 if place < 100 else 0.3
        t.note(clean_loss=100.0 if stepped else single, two_step=float(stepped))
        trigger.observe(t)
    assert len(two) == hold
    first = two[0]
    assert two == list(range(first, first + hold))
    single_after = 200 - first - hold
    state = memory["clean_loss"]
    assert state["seen"] == single_after, "begun anew after the hold"
    assert state["short"] == pytest.approx(0.3) and state["long"] == pytest.approx(0.3)


# an lr that is lowered makes the loss fall too


@pytest.mark.parametrize("factor", [0.1, 0.49, 0.5])
def test_not_within_quiet_after_the_learning_rate_was_lowered(factor):
    losses = [1.0] * 100 + [0.3] * QUICK.quiet
    assert drive(QUICK, losses), "without it, it fires"
    assert drive(QUICK, losses, lr=lambda i: 0.1 if i < 100 else 0.1 * factor) == []


def test_a_learning_rate_lowered_by_little_or_raised_is_no_excuse():
    losses = [1.0] * 100 + [0.3] * QUICK.quiet
    for factor in (0.6, 2.0):
        assert drive(QUICK, losses, lr=lambda i, k=factor: 0.1 if i < 100 else 0.1 * k)
    assert drive(QUICK, losses, lr=lambda i: 0.1 * (1 - i / 200)), "nor lowered bit by bit"


def test_a_loop_of_ones_own_need_not_tell_the_learning_rate():
    """A StepContext without one has lr 0."""
    losses = [1.0] * 100 + [0.3] * QUICK.quiet
    assert StepContext().lr == 0.0
    assert drive(QUICK, losses, lr=0.0) == drive(QUICK, losses) != []


def test_after_quiet_a_new_drop_counts():
    lr = lambda i: 0.1 if i < 100 else 0.01  # noqa: E731
    losses = [1.0] * 100 + [0.9] * (QUICK.quiet + 20)
    assert drive(QUICK, losses, lr) == []
    two = drive(QUICK, losses + [0.3] * 20, lr)
    assert two and two[0] > len(losses)


@pytest.mark.parametrize("level", [0.6, 0.5, 0.3, 0.1])
def test_what_the_learning_rate_did_is_not_held_against_the_network_later(level):
    """The fall comes from the lr, however far it goes: the long mean must not remember it."""
    losses = [1.0] * 1000 + [level] * 1000
    assert drive(CleanLossDrop(), losses, lr=lambda i: 0.1 if i < 1000 else 0.01) == []


# a drop of robustness


class Fading(nn.Module):
    """One pixel, class 1 from 1/2 on; `broken` makes everything class 0."""

    def __init__(self):
        super().__init__()
        self.broken, self.calls = False, 0

    def forward(self, x):
        self.calls += 1
        z = (x.flatten(1)[:, :1] - 0.5) * (0 if self.broken else 1)
        return torch.cat([-z + 1e-6, z], 1)


PIXELS = torch.tensor([0.1, 0.2, 0.8, 0.9]).reshape(-1, 1, 1, 1)
LABELS = torch.tensor([0, 0, 1, 1])


def test_robustness_is_looked_at_every_so_often_and_its_fall_answered():
    trigger = RobustnessDrop(BALL, drop=0.2, every=5, hold=7)
    f, memory, two, looks = Fading(), {}, [], []
    for place in range(30):
        f.broken = place >= 12
        t = StepContext(1, place, memory=memory)
        before = f.calls
        if trigger.wants_two(f, PIXELS, LABELS, t):
            two.append(place)
        if f.calls > before:
            looks.append(place)
        trigger.observe(t)
    assert two == [*range(15, 22), *range(25, 30)], "at the next look, and for `hold` batches"
    assert looks == [0, 5, 10, 15, 25]
    assert memory["best_robust"] == 1.0
    assert memory["marks"]["two_step"] == [[1, 15], [1, 25]]


@pytest.mark.parametrize(("drop", "fires"), [(0.45, True), (0.55, False)])
def test_robustness_must_fall_by_more_than_drop(drop, fires):
    trigger, f, memory = RobustnessDrop(BALL, drop=drop, every=1), Fading(), {}
    assert not trigger.wants_two(f, PIXELS, LABELS, StepContext(0, 0, memory=memory))
    f.broken = True  # half of the labels are 0
    assert trigger.wants_two(f, PIXELS, LABELS, StepContext(0, 1, memory=memory)) is fires


def test_the_look_is_pgd_5_within_the_ball_and_costs_eleven_forwards():
    torch.manual_seed(3)
    f = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.rand(64, 1, 4, 4), torch.randint(3, (64,))
    calls, memory = [], {}
    f.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(4)
    assert not RobustnessDrop(BALL).wants_two(f, x, y, StepContext(memory=memory))
    assert len(calls) == 6  # 5 with a backward for the image, one alone: 11 forwards
    torch.manual_seed(4)
    x_adv = PGD(BALL, steps=5, size=Constant(1 / 4))(f, x, y)
    assert memory["best_robust"] == float(correct(f, x_adv, y).float().mean())


# a share


@pytest.mark.parametrize("batches", [1, 19, 100, 300, 781])
@pytest.mark.parametrize("share", [0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1])
def test_a_share_of_the_batches(share, batches):
    two = drive(Share(share), [1.0] * batches)
    assert len(two) == math.floor(batches * share)
    if share in (0, 1):
        assert two == (list(range(batches)) if share else [])
    gaps = {b - a for a, b in pairwise(two)}
    assert not gaps or max(gaps) - min(gaps) <= 1, "spread evenly"


def test_a_share_that_is_no_binary_fraction_is_exact():
    """100 * 0.29 is 28.999... in floating point."""
    counts = {n: len(drive(Share(n / 100), [1.0] * 100)) for n in range(101)}
    assert counts == {n: n for n in range(101)}


def test_a_small_share_is_kept_over_epochs():
    """19 batches an epoch, as with the digits: 1/20 of all batches, not none."""
    assert len(drive(Share(0.05), [1.0] * 19 * 40, batches=19)) == 19 * 40 // 20


def test_always():
    assert drive(Always(), [1.0] * 5) == [0, 1, 2, 3, 4]


# the step that is taken


@dataclass(frozen=True)
class Told(Trigger):
    """Two steps in the batches that it is told."""

    batches: tuple[int, ...] = ()

    def wants_two(self, f, x, y, t):
        return t.batch in self.batches


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )


def one_step(method, batch, epoch=3):
    """The loss, the gradient, the statistics and how many forwards, for a step of a method."""
    f = network().train()
    torch.manual_seed(1)
    x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    forwards = []
    f.register_forward_hook(lambda *_: forwards.append(1))
    t = StepContext(epoch, batch, 10, batch_size=8)
    losses = []
    torch.manual_seed(2)
    for loss in method.step(f, x, y, t):
        f.zero_grad()
        loss.backward()
        losses.append(loss.detach())
    made = [*losses, *(weight.grad for weight in f.parameters()), *f.buffers()]
    return made, len(forwards), t


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_it_is_nuat_when_not_fired_and_nuat2_when_fired(batch):
    one, two = NuAT(BALL, 3.0), NuAT2(BALL, 2.0)
    made, forwards, t = one_step(NuATH(one, two, Told((2, 3))), batch)
    alone, expected, _ = one_step(two if batch >= 2 else one, batch)
    assert len(made) == len(alone)
    assert all(torch.equal(a, b) for a, b in zip(made, alone, strict=True))
    assert forwards == expected == (5 if batch >= 2 else 3)
    assert t.notes["two_step"] == float(batch >= 2)
    assert 0 < float(t.notes["clean_loss"]) < 10


def test_the_teacher_averages_from_the_first_step_on_and_not_from_the_first_firing():
    f = network().train()
    averages = EMAs(f)
    method = NuATH(NuAT(BALL, 3.0), NuAT2(BALL, 2.0, teacher=0.9), Told((3,)))
    optimizer, expected = torch.optim.SGD(f.parameters(), lr=0.1), None
    for batch in range(3):
        x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
        for loss in method.step(f, x, y, StepContext(1, batch, 4, 8, averages=averages)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        averages.update()
        w = f[4].weight.detach().clone()
        expected = w if expected is None else 0.9 * expected + 0.1 * w
    assert torch.allclose(averages(0.9)[4].weight, expected, atol=1e-6)
    assert not torch.allclose(averages(0.9)[4].weight, w, atol=1e-3)


def test_the_trigger_sees_the_clean_loss_of_the_step():
    x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    f = network().train()
    clean = nuat.ce(f(x), y).detach()
    f = network().train()
    t = StepContext(2, 0, batch_size=8)
    list(NuATH(NuAT(BALL), NuAT2(BALL), CleanLossDrop()).step(f, x, y, t))
    assert t.memory["clean_loss"]["seen"] == 1
    assert t.memory["clean_loss"]["long"] == pytest.approx(float(clean), rel=1e-5)


def test_the_ball_and_the_epochs_of_a_recipe_reach_every_part():
    row = nuat.get_recipe("nuat-h", "digits")
    row = replace(row, method=replace(row.method, trigger=RobustnessDrop(row.ball)))
    changed = row.with_threat_model(nuat.Linf(0.05)).with_epochs(row.epochs // 2)
    parts = changed.method.one, changed.method.two, changed.method.trigger
    assert {part.ball for part in parts} == {nuat.Linf(0.05)}
    assert changed.method.one.lam.epochs == row.method.one.lam.epochs / 2
    assert changed.method.two.lam.epochs == row.method.two.lam.epochs / 2


def test_every_trigger_can_be_written_with_set():
    for kind in (Always, Share, CleanLossDrop, RobustnessDrop):
        assert CONFIG_NAMES[kind.__name__] is kind
        changed = nuat.get_recipe("nuat-h", "digits").with_override("trigger", f"{kind.__name__}()")
        assert type(changed.method.trigger) is kind


def test_a_trigger_written_with_set_looks_within_the_ball_of_the_recipe():
    row = nuat.get_recipe("nuat-h", "digits").with_override("trigger", "RobustnessDrop()")
    assert row.method.trigger.ball == row.ball


# in a run


def row(trigger, epochs=3):
    """19 batches an epoch."""
    base = nuat.get_recipe("nuat-wa-h", "digits").with_epochs(epochs)
    method = replace(base.method, trigger=trigger)
    return replace(base, method=method, model="small-cnn(width=4)")


def memory(run):
    return torch.load(run.path / "checkpoint.pt", weights_only=True)["memory"]


SENSITIVE = CleanLossDrop(short=3, long=30, warm=6, drop=0.01, hold=8, quiet=5)


def test_the_share_of_two_step_batches_and_their_beginnings_are_written_down(tmp_path):
    run = nuat.fit(row(SENSITIVE), out=tmp_path / "run")
    shares = [line["two_step"] for line in run.metrics]
    counts = [round(19 * share) for share in shares]
    assert shares == pytest.approx([n / 19 for n in counts])
    kept = memory(run)
    began = kept["marks"]["two_step"]
    assert began and all(0 <= epoch < 3 and 0 <= batch < 19 for epoch, batch in began)
    places = sorted(19 * epoch + batch for epoch, batch in began)
    expected = [place + k for place in places for k in range(1, 9) if place + k < 57]
    assert counts == [sum(place // 19 == epoch for place in expected) for epoch in range(3)]
    assert 0 < sum(counts) < 57
    assert kept["two_step_left"] == max(0, 8 - (57 - 1 - places[-1]))
    assert all(line["clean_loss"] > 0 for line in run.metrics)
    written = [moment for line in run.metrics for moment in line["two_step_began"]]
    assert written == pytest.approx([epoch + batch / 19 for epoch, batch in began])
    page = write_page([run], tmp_path / "report.html").read_text()
    assert "Triangles on the axis" in page


def test_the_share_of_a_share(tmp_path):
    run = nuat.fit(row(Share(0.5), epochs=2), out=tmp_path / "half")
    counts = [19 * line["two_step"] for line in run.metrics]
    assert counts[0] == pytest.approx(9) and sum(counts) in (pytest.approx(18), pytest.approx(19))
    run = nuat.fit(row(Share(0), epochs=1), out=tmp_path / "none")
    assert run.metrics[0]["two_step"] == 0


def outcome(run):
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)
    return {
        "model": read_weights(run.path / "model.safetensors")[0],
        "last": read_weights(run.path / "last.safetensors")[0],
        "state": {k: v for k, v in state.items() if k != "seconds"},
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics],
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize(
    "trigger", [SENSITIVE, RobustnessDrop(BALL, drop=-0.05, every=7, hold=4)], ids=["loss", "pgd"]
)
def test_stopped_within_a_hold_and_between_holds_ends_bit_equal(tmp_path, monkeypatch, trigger):
    whole = nuat.fit(row(trigger), out=tmp_path / "whole")
    first = memory(whole)["marks"]["two_step"][0]
    middle = 19 * first[0] + first[1] + 3
    stops = sorted({4, middle, 25, 40})
    lefts, done = [], 0
    for stop in stops:
        steps = iter(range(stop - done))
        monkeypatch.setattr(
            "nuat.training.trainer.Trainer.time_is_up",
            property(lambda self, s=steps: next(s, None) is None),
        )
        run = nuat.fit(row(trigger), out=tmp_path / "stopped", max_time=1)
        assert not run.finished
        lefts.append(memory(run).get("two_step_left", 0))
        done = stop
    monkeypatch.undo()
    assert lefts[stops.index(middle)] > 0, "stopped while it held"
    run = nuat.fit(row(trigger), out=tmp_path / "stopped")
    assert run.finished
    assert equal(outcome(run), outcome(whole))
