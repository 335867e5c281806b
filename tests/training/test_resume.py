"""A run that is killed, stopped or resumed reaches the weights of an uninterrupted one."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import nuat
import nuat.training.trainer
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights
from nuat.methods import Method

TRAIN = [sys.executable, "-m", "nuat.cli", "train", "nuat2-wa", "--epochs", "8", "--seed", "3"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def launch(out: Path) -> subprocess.Popen:
    command = [*TRAIN, "--set", "model=small-cnn(width=8)", "--out", str(out)]
    return subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, text=True)


def outcome(out: Path) -> dict:
    """Everything that must be equal: weights, checkpoint and metrics, except the time taken."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    untimed = [{k: v for k, v in line.items() if k != "seconds"} for line in Run(out).metrics]
    return {
        "model": read_weights(out / "model.safetensors"),
        "last": read_weights(out / "last.safetensors"),
        "current": state["model"],
        "emas": state["emas"],
        "metrics": untimed,
    }


def assert_equal(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, other, f"{path}/{i}")
    else:
        assert a == b, path


def test_killed_at_random_moments_ends_bit_equal(tmp_path):
    whole = launch(tmp_path / "whole")
    assert whole.wait(timeout=120) == 0

    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    killed, after = tmp_path / "killed", []
    for _ in range(3):
        process = launch(killed)
        while not (killed / "config.json").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 3.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        after.append(len(Run(killed).metrics))
    last = launch(killed)
    assert last.wait(timeout=120) == 0
    print(f"seed {seed}: killed after {after} epochs")
    assert_equal(outcome(tmp_path / "whole"), outcome(killed), f"seed {seed}")


def row(**changes):
    return (
        nuat.get_recipe("nuat2-wa", "digits")
        .with_epochs(2)
        .with_override("model", "small-cnn(width=4)")
    )


def test_stopped_in_the_middle_of_epochs_ends_bit_equal(tmp_path, monkeypatch):
    nuat.fit(row(), out=tmp_path / "whole")
    places = []
    for stop_at in (5, 19, 24, 37):
        steps = iter(range(stop_at - (places[-1] if places else 0)))
        monkeypatch.setattr(
            "nuat.training.trainer.Trainer.time_is_up",
            property(lambda self, s=steps: next(s, None) is None),
        )
        run = nuat.fit(row(), out=tmp_path / "stopped", max_time=1)
        assert not run.finished
        state = torch.load(run.path / "checkpoint.pt", weights_only=True)
        places.append(state["epoch"] * 19 + state["batch"])
    monkeypatch.undo()
    assert places == [5, 19, 24, 37]
    assert nuat.fit(row(), out=tmp_path / "stopped").finished
    assert_equal(outcome(tmp_path / "whole"), outcome(tmp_path / "stopped"))


def test_stopped_in_validations_ends_bit_equal(tmp_path, monkeypatch):
    nuat.fit(row(), out=tmp_path / "whole")
    in_batches = partial(nuat.training.trainer.validate, batch_size=50)
    monkeypatch.setattr("nuat.training.trainer.validate", in_batches)
    for epoch in (0, 1):
        monkeypatch.setattr(
            "nuat.training.trainer.Trainer.time_is_up",
            property(lambda self, epoch=epoch: self.epoch == epoch and self.batch == self.batches),
        )
        run = nuat.fit(row(), out=tmp_path / "stopped", max_time=1)
        assert not run.finished and len(run.metrics) == epoch
        state = torch.load(run.path / "checkpoint.pt", weights_only=True)
        assert (state["epoch"], state["batch"]) == (epoch, 19)
    monkeypatch.undo()
    assert nuat.fit(row(), out=tmp_path / "stopped").finished
    assert_equal(outcome(tmp_path / "whole"), outcome(tmp_path / "stopped"))


def test_the_seed_matters_and_nothing_else_does(tmp_path):
    torch.manual_seed(1)
    one = nuat.fit(row(), out=tmp_path / "one", seed=1)
    torch.manual_seed(2)
    again = nuat.fit(row(), out=tmp_path / "again", seed=1)
    other = nuat.fit(row(), out=tmp_path / "other", seed=2)
    assert_equal(one.weights(), again.weights())
    assert not torch.equal(one.weights()["head.weight"], other.weights()["head.weight"])


def test_fit_leaves_the_callers_randomness_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    nuat.fit(row(), out=tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = nuat.fit(row(), out=tmp_path / "run")
    stamp = (first.path / "checkpoint.pt").stat().st_mtime_ns
    nuat.fit(row(), out=tmp_path / "run")
    assert (first.path / "checkpoint.pt").stat().st_mtime_ns == stamp


def test_another_run_in_the_folder_is_refused_and_kept(tmp_path):
    run = nuat.fit(row(), out=tmp_path / "run")
    before = {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()}
    with pytest.raises(nuat.InputError, match=r"another run.*seed: 5 here, 0 there"):
        nuat.fit(row(), out=tmp_path / "run", seed=5)
    with pytest.raises(nuat.InputError, match=r"recipe\.method\.lam\.to: 9\.0 here"):
        nuat.fit(row().with_override("lam.to", "9"), out=tmp_path / "run")
    after = {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()}
    assert before == after


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(nuat.InputError, match="not empty and not a run"):
        nuat.fit(row(), out=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@dataclass(frozen=True)
class Explodes(Method):
    """Ordinary training until the fifth batch of the second epoch."""

    def step(self, model, x, y, ctx):
        loss = nuat.ce(model(x), y)
        yield loss * float("nan") if (ctx.epoch, ctx.batch) == (1, 4) else loss


def test_a_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    bad = replace(row(), method=Explodes())
    with pytest.raises(nuat.NonFiniteError, match=r"epoch 2, batch 5 of 19: the loss is nan"):
        nuat.fit(bad, out=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 1
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())
    assert len(Run(tmp_path / "run").metrics) == 1


@dataclass(frozen=True)
class Greedy(Method):
    """Ordinary training that asks for more memory than there is, for more than two images."""

    def step(self, model, x, y, ctx):
        if len(x) > 2:
            torch.empty(2**48)
        yield nuat.ce(model(x), y)


def test_out_of_memory_is_an_error_with_advice(tmp_path):
    with pytest.raises(nuat.InputError, match=r"batches of 64 do not fit .* batch_size=32"):
        nuat.fit(replace(row(), method=Greedy()), data="digits", out=tmp_path / "run")


def test_an_incomplete_last_line_of_metrics_is_dropped(tmp_path):
    run = nuat.fit(row(), out=tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text()
    (run.path / "metrics.jsonl").write_text(lines + '{"epoch": 3, "lo')
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    nuat.fit(row(), out=tmp_path / "run")
    assert (run.path / "metrics.jsonl").read_text() == lines


def test_another_precision_is_another_run(tmp_path):
    settings = {"data": "digits", "model": "small-cnn(width=4)", "out": tmp_path / "run"}
    recipe = nuat.get_recipe("nuat", "digits").with_epochs(2)
    assert not nuat.fit(recipe, **settings, max_time=0).finished
    with pytest.raises(nuat.InputError, match="precision: bf16 here, fp32 there"):
        nuat.fit(replace(recipe, precision="bf16"), **settings)
    assert nuat.fit(recipe, **settings).finished


def test_a_note_mended_or_another_reaction_to_overfitting_is_the_same_run(tmp_path):
    recipe = nuat.get_recipe("nuat", "digits").with_epochs(2)
    options = {"data": "digits", "model": "small-cnn(width=4)", "out": tmp_path / "run"}
    assert not nuat.fit(recipe, **options, max_time=0).finished
    changed = replace(recipe, note="mended", source="paper", on_overfitting="stop")
    assert nuat.fit(changed, **options).finished
    with pytest.raises(nuat.InputError, match=r"differs in recipe\.weight_decay"):
        nuat.fit(replace(changed, weight_decay=1.0), **options)


def test_files_that_take_long_are_written_less_often(tmp_path, monkeypatch):
    """The best epoch is not lost by it, and a run that is killed before its files starts anew."""
    recipe = replace(
        nuat.get_recipe("nuat2-wa", "digits").with_epochs(4), model="small-cnn(width=4)"
    )
    whole = nuat.fit(recipe, data="digits", out=tmp_path / "whole", seed=3)
    monkeypatch.setattr("nuat.training.trainer.is_worth_saving", lambda trainer: False)
    log = Run.log

    def log_and_die(run, metrics):
        log(run, metrics)
        assert not (run.path / "model.safetensors").exists()
        if metrics["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "log", log_and_die)
        nuat.fit(recipe, data="digits", out=tmp_path / "rare", seed=3)
    rare = nuat.fit(recipe, data="digits", out=tmp_path / "rare", seed=3)
    assert_equal(outcome(rare.path), outcome(whole.path))
