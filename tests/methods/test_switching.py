"""NuAT-H: when it uses two attack steps, which step it then takes, and that it resumes exactly."""

import math
import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import nuat
from nuat.checkpoints.weights_io import read_weights
from nuat.methods import CleanLossDrop, NuAT, NuAT2, NuATH, StepContext, Trigger
from nuat.nn.ema import EMAs
from nuat.report import write_page

BALL = nuat.Linf(0.15)
QUICK = CleanLossDrop(short=5, long=50, warmup=10, drop=0.25, hold=12, cooldown=30)


def drive(trigger, losses, lr=0.1, memory=None, batches=10**6):
    """The indices of the two-step batches in a run with these clean losses."""
    memory = {} if memory is None else memory
    two = []
    for place, loss in enumerate(losses):
        rate = lr(place) if callable(lr) else lr
        ctx = StepContext(place // batches, place % batches, batches, lr=rate, memory=memory)
        stepped = trigger.use_two_steps(ctx)
        two += [place] if stepped else []
        ctx.log(clean_loss=torch.tensor(loss), two_step=float(stepped))
        trigger.observe(ctx)
    return two


def noisy(losses, spread=0.1, seed=0):
    generator = random.Random(seed)
    return [loss * (1 + generator.uniform(-spread, spread)) for loss in losses]


# the trigger


def test_a_sudden_drop_starts_exactly_hold_two_step_batches():
    memory = {}
    two = drive(QUICK, [1.0] * 100 + [0.3] * 20, memory=memory)
    assert 100 < two[0] <= 100 + QUICK.short
    assert two == list(range(two[0], two[0] + QUICK.hold))
    assert memory["events"]["two_step"] == [[0, two[0] - 1]], "the batch whose loss fell"


def test_it_activates_at_the_first_batch_whose_short_mean_is_low_enough():
    losses = noisy([1.0] * 60 + [0.6] * 40)
    expected, short, long = None, 0.0, 0.0
    for place, loss in enumerate(losses, 1):
        short += (loss - short) / min(place, QUICK.short)
        long += (loss - long) / min(place, QUICK.long)
        if expected is None and place > 60 and short < 0.75 * long:
            expected = place  # counted from 1: the place after this batch
    assert drive(QUICK, losses)[0] == expected


@pytest.mark.parametrize("drop", [0.1, 0.25, 0.5])
def test_only_a_fall_of_more_than_drop_counts(drop):
    trigger = replace(QUICK, drop=drop, long=10**6)
    barely, enough = 1 - 0.95 * drop, 1 - 1.3 * drop
    assert drive(trigger, [1.0] * 1000 + [barely] * 60) == []
    assert drive(trigger, [1.0] * 1000 + [enough] * 60)


def test_a_slow_decline_a_rise_and_noise_do_not_count():
    trigger = CleanLossDrop()
    assert drive(trigger, noisy([2.0 * math.exp(-i / 1500) for i in range(4000)])) == []
    assert drive(trigger, noisy([0.5 + i / 1000 for i in range(2000)])) == []
    assert drive(trigger, noisy([1.0] * 2000, spread=0.4)) == []


def test_nothing_counts_during_warmup():
    losses = [1.0] * QUICK.short + [0.0] * QUICK.short
    assert drive(QUICK, losses[:-1]) == []
    assert drive(QUICK, [*losses, 0.0])[0] == 2 * QUICK.short


def test_the_means_restart_after_the_two_step_batches():
    losses = [1.0] * 100 + [0.3] * 200
    two = drive(QUICK, losses)
    assert len(two) == QUICK.hold, "0.3 is the new level, and no drop of itself"
    again = drive(QUICK, losses + [0.1] * 30)
    assert len(again) == 2 * QUICK.hold
    assert 300 < again[QUICK.hold] <= 300 + QUICK.short


@pytest.mark.parametrize("hold", [1, 2, 3, 12])
def test_only_single_step_batches_enter_the_means(hold):
    """The clean losses of two-step batches, here 100, must not count."""
    trigger = replace(QUICK, hold=hold)
    memory, two = {}, []
    for place in range(200):
        ctx = StepContext(0, place, lr=0.1, memory=memory)
        stepped = trigger.use_two_steps(ctx)
        two += [place] if stepped else []
        single = 1.0 if place < 100 else 0.3
        ctx.log(clean_loss=100.0 if stepped else single, two_step=float(stepped))
        trigger.observe(ctx)
    assert len(two) == hold
    first = two[0]
    assert two == list(range(first, first + hold))
    single_after = 200 - first - hold
    state = memory["clean_loss"]
    assert state["seen"] == single_after, "begun anew after the hold"
    assert state["short"] == pytest.approx(0.3) and state["long"] == pytest.approx(0.3)


# a lower learning rate makes the loss fall too


@pytest.mark.parametrize("factor", [0.1, 0.49, 0.5])
def test_nothing_counts_during_the_cooldown_after_the_learning_rate_fell(factor):
    losses = [1.0] * 100 + [0.3] * QUICK.cooldown
    assert drive(QUICK, losses), "without it, it fires"
    assert drive(QUICK, losses, lr=lambda i: 0.1 if i < 100 else 0.1 * factor) == []


def test_a_learning_rate_that_falls_a_little_or_rises_starts_no_cooldown():
    losses = [1.0] * 100 + [0.3] * QUICK.cooldown
    for factor in (0.6, 2.0):
        assert drive(QUICK, losses, lr=lambda i, k=factor: 0.1 if i < 100 else 0.1 * k)
    assert drive(QUICK, losses, lr=lambda i: 0.1 * (1 - i / 200)), "nor lowered bit by bit"


def test_an_outside_loop_may_leave_the_learning_rate_out():
    """The learning rate of a StepContext is 0 by default."""
    losses = [1.0] * 100 + [0.3] * QUICK.cooldown
    assert StepContext().lr == 0.0
    assert drive(QUICK, losses, lr=0.0) == drive(QUICK, losses) != []


def test_a_new_drop_counts_after_the_cooldown():
    lr = lambda i: 0.1 if i < 100 else 0.01  # noqa: E731
    losses = [1.0] * 100 + [0.9] * (QUICK.cooldown + 20)
    assert drive(QUICK, losses, lr) == []
    two = drive(QUICK, losses + [0.3] * 20, lr)
    assert two and two[0] > len(losses)


@pytest.mark.parametrize("level", [0.6, 0.5, 0.3, 0.1])
def test_a_fall_caused_by_the_learning_rate_never_counts_later(level):
    """The long mean must not remember the loss from before the learning rate fell."""
    losses = [1.0] * 1000 + [level] * 1000
    assert drive(CleanLossDrop(), losses, lr=lambda i: 0.1 if i < 1000 else 0.01) == []


# the step


@dataclass(frozen=True)
class ScheduledTrigger(Trigger):
    """Two attack steps in the given batches."""

    batches: tuple[int, ...] = ()

    def use_two_steps(self, ctx):
        return ctx.batch in self.batches


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )


def one_step(method, batch, epoch=3):
    """One step of a method: losses, gradients and buffers; the number of forward passes; ctx."""
    model = network().train()
    torch.manual_seed(1)
    x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    ctx = StepContext(epoch, batch, 10, batch_size=8)
    losses = []
    torch.manual_seed(2)
    for loss in method.step(model, x, y, ctx):
        model.zero_grad()
        loss.backward()
        losses.append(loss.detach())
    made = [*losses, *(weight.grad for weight in model.parameters()), *model.buffers()]
    return made, len(forwards), ctx


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_a_step_is_that_of_nuat_or_of_nuat2(batch):
    one, two = NuAT(BALL, 3.0), NuAT2(BALL, 2.0)
    made, forwards, ctx = one_step(NuATH(one, two, ScheduledTrigger((2, 3))), batch)
    alone, expected, _ = one_step(two if batch >= 2 else one, batch)
    assert len(made) == len(alone)
    assert all(torch.equal(a, b) for a, b in zip(made, alone, strict=True))
    assert forwards == expected == (5 if batch >= 2 else 3)
    assert ctx.logs["two_step"] == float(batch >= 2)
    assert 0 < float(ctx.logs["clean_loss"]) < 10


def test_the_ema_averages_from_the_first_step_on():
    model = network().train()
    averages = EMAs(model)
    method = NuATH(NuAT(BALL, 3.0), NuAT2(BALL, 2.0, attack_ema_decay=0.9), ScheduledTrigger((3,)))
    optimizer, expected = torch.optim.SGD(model.parameters(), lr=0.1), None
    for batch in range(3):
        x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
        for loss in method.step(model, x, y, StepContext(1, batch, 4, 8, emas=averages)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        averages.update()
        w = model[4].weight.detach().clone()
        expected = w if expected is None else 0.9 * expected + 0.1 * w
    assert torch.allclose(averages(0.9)[4].weight, expected, atol=1e-6)
    assert not torch.allclose(averages(0.9)[4].weight, w, atol=1e-3)


def test_the_trigger_sees_the_clean_loss_of_the_step():
    x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    model = network().train()
    clean = nuat.ce(model(x), y).detach()
    model = network().train()
    ctx = StepContext(2, 0, batch_size=8)
    list(NuATH(NuAT(BALL), NuAT2(BALL), CleanLossDrop()).step(model, x, y, ctx))
    assert ctx.memory["clean_loss"]["seen"] == 1
    assert ctx.memory["clean_loss"]["long"] == pytest.approx(float(clean), rel=1e-5)


def test_the_ball_and_the_epochs_of_a_recipe_reach_every_part():
    row = nuat.get_recipe("nuat-h", "digits")
    changed = row.with_threat_model(nuat.Linf(0.05)).with_epochs(row.epochs // 2)
    parts = changed.method.single_step, changed.method.two_step
    assert {part.ball for part in parts} == {nuat.Linf(0.05)}
    assert changed.method.single_step.lam.epochs == row.method.single_step.lam.epochs / 2
    assert changed.method.two_step.lam.epochs == row.method.two_step.lam.epochs / 2


def test_the_trigger_can_be_set_by_name():
    changed = nuat.get_recipe("nuat-h", "digits").with_override("trigger", "CleanLossDrop(hold=7)")
    assert changed.method.trigger == CleanLossDrop(hold=7)


# in a run


def row(trigger, epochs=3):
    """A recipe of 19 batches per epoch."""
    base = nuat.get_recipe("nuat-wa-h", "digits").with_epochs(epochs)
    method = replace(base.method, trigger=trigger)
    return replace(base, method=method, model="small-cnn(width=4)")


def memory(run):
    return torch.load(run.path / "checkpoint.pt", weights_only=True)["memory"]


SENSITIVE = CleanLossDrop(short=3, long=30, warmup=6, drop=0.01, hold=8, cooldown=5)


def test_the_metrics_contain_the_share_and_the_starts_of_two_step_batches(tmp_path):
    run = nuat.fit(row(SENSITIVE), out=tmp_path / "run")
    shares = [line["two_step"] for line in run.metrics]
    counts = [round(19 * share) for share in shares]
    assert shares == pytest.approx([n / 19 for n in counts])
    kept = memory(run)
    began = kept["events"]["two_step"]
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


TIMED = ("seconds", "metrics", "checksum")
"""Entries of a checkpoint that depend on the time taken."""


def outcome(run):
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)
    return {
        "model": read_weights(run.path / "model.safetensors")[0],
        "last": read_weights(run.path / "last.safetensors")[0],
        "state": {k: v for k, v in state.items() if k not in TIMED},
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


def test_a_run_stopped_within_and_between_activations_resumes_bit_equal(tmp_path, monkeypatch):
    trigger = SENSITIVE
    whole = nuat.fit(row(trigger), out=tmp_path / "whole")
    first = memory(whole)["events"]["two_step"][0]
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
