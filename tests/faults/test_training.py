"""What training makes of signals, damaged files, full disks and numbers that are not finite."""

import errno
import json
import os
import shutil
import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import nuat
from nuat.checkpoints import read_weights
from nuat.checkpoints.run import Run
from nuat.methods import Method
from nuat.runtime.checksums import with_checksum
from nuat.runtime.signals import SIGNALS, Stopped
from nuat.training.saving import save_checkpoint
from nuat.training.trainer import Trainer

EPOCHS, BATCHES = 3, 4


@pytest.fixture(scope="module")
def data():
    digits = nuat.load_dataset("digits")
    parts = {"train": (digits.train, 64), "val": (digits.val, 20), "test": (digits.test, 20)}
    return nuat.data.as_splits(
        {name: split.batch(torch.arange(count)) for name, (split, count) in parts.items()}
    )


def recipe(name="nuat2-wa", **changes):
    return (
        replace(nuat.get_recipe(name, "digits"), batch_size=16, **changes)
        .with_epochs(EPOCHS)
        .with_override("model", "small-cnn(width=4)")
    )


def fit(data, out, row=None, **options):
    return nuat.fit(row or recipe(), data=data, out=out, **options)


def at_batch(monkeypatch, epoch, batch, act):
    """Call `act` before one training step."""
    step = Trainer.train_batch

    def train_batch(self, inputs):
        if (self.epoch, self.batch) == (epoch, batch):
            act(self)
        step(self, inputs)

    monkeypatch.setattr(Trainer, "train_batch", train_batch)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return fit(data, tmp_path_factory.mktemp("faults") / "whole")


@pytest.fixture(scope="module")
def part(data, tmp_path_factory):
    """A run that was stopped in its last epoch."""
    out = tmp_path_factory.mktemp("faults") / "part"
    with pytest.MonkeyPatch.context() as patch:
        at_batch(patch, EPOCHS - 1, 2, lambda trainer: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Stopped):
            fit(data, out)
    return out


@pytest.fixture
def copied(part, whole, tmp_path):
    """Copies of both, to be damaged."""
    shutil.copytree(part, tmp_path / "part")
    shutil.copytree(whole.path, tmp_path / "whole")
    return tmp_path


def same(run, whole):
    """Whether two runs end bit-equal, but for the time taken."""
    for name in ("model", "last"):
        file = f"{name}.safetensors"
        assert (run.path / file).read_bytes() == (whole.path / file).read_bytes(), file
    untimed = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in each.metrics]
        for each in (run, whole)
    ]
    assert untimed[0] == untimed[1]
    return True


# signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_step_and_saves(data, whole, tmp_path, monkeypatch, capsys, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    at_batch(monkeypatch, 1, 2, lambda trainer: os.kill(os.getpid(), number))
    with pytest.raises(Stopped, match="run the same command again") as stopped:
        fit(data, tmp_path / "run")
    assert stopped.value.status == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert "stopped after epoch 1, batch 3; run the same command" in capsys.readouterr().out
    state = Run(tmp_path / "run").load_checkpoint(torch.device("cpu"))
    assert (state["epoch"], state["batch"]) == (1, 3), "the step is finished, not repeated"
    assert not (tmp_path / "run" / "lock").exists()
    monkeypatch.undo()
    assert same(fit(data, tmp_path / "run"), whole)


def test_a_second_signal_ends_at_once(data, tmp_path, monkeypatch):
    def twice(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    at_batch(monkeypatch, 1, 2, twice)
    with pytest.raises(Stopped):
        fit(data, tmp_path / "run")
    state = Run(tmp_path / "run").load_checkpoint(torch.device("cpu"))
    assert (state["epoch"], state["batch"]) == (1, 0)


def test_training_in_another_thread_handles_no_signal(data, whole, tmp_path):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(fit(data, tmp_path / "run")))
    thread.start()
    thread.join()
    assert same(runs[0], whole)


def test_output_to_a_closed_terminal_does_not_matter(data, whole, tmp_path, monkeypatch):
    kept, (ours, theirs) = os.dup(1), os.openpty()

    def hang_up(trainer):
        os.close(ours)
        os.kill(os.getpid(), signal.SIGHUP)
        os.write(1, b"a line of progress\n")

    at_batch(monkeypatch, 1, 2, hang_up)
    try:
        os.dup2(theirs, 1)
        with pytest.raises(Stopped):
            fit(data, tmp_path / "run")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(theirs)
    monkeypatch.undo()
    assert same(fit(data, tmp_path / "run"), whole)


def test_max_time_has_an_exit_status_of_its_own(call, tmp_path):
    line = f"train normal --model 'small-cnn(width=4)' --epochs 1 --out {tmp_path / 'run'}"
    stopped = call(f"{line} --max-time 0s")
    assert stopped.status == 75 and stopped.err.count("\n") == 1
    assert "run the same command again to go on" in stopped.err
    done = call(f"{line} --max-time 1h")
    assert (done.status, done.err) == (0, "") and "The weights are in" in done.out


# damaged files


DAMAGES = {
    "one bit": lambda content: flip(content, len(content) // 2),
    "near the end": lambda content: flip(content, len(content) - 30),
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "text": lambda content: b"<html>\n",
    "bytes": lambda content: b"\xff\xfe\n" * 300,
}


def flip(content, at):
    changed = bytearray(content)
    changed[at] ^= 32
    return bytes(changed)


def damage(file, how):
    file.write_bytes(DAMAGES[how](file.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("base", ["part", "whole"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(data, whole, copied, base, how):
    damage(copied / base / "checkpoint.pt", how)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged.*checkpoint\.previous\.pt is"):
        run = fit(data, copied / base)
    assert same(run, whole)


def test_without_a_good_checkpoint_the_error_says_so(data, copied):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        damage(copied / "part" / name, "one bit")
    with pytest.raises(nuat.InputError, match="no other checkpoint: delete it to train from"):
        fit(data, copied / "part")


@pytest.mark.parametrize("how", [*DAMAGES, "lost", "a line lost", "a foreign line", "null"])
@pytest.mark.parametrize("base", ["part", "whole"])
def test_metrics_change_nothing_that_is_trained(data, whole, copied, base, how):
    file = copied / base / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    if how in DAMAGES:
        damage(file, how)
    elif how == "lost":
        file.unlink()
    else:
        foreign = {"a line lost": "", "null": "null\n", "a foreign line": lines[-1]}[how]
        file.write_text("".join(lines[:-1]) + foreign * 2)
    assert same(fit(data, copied / base), whole)


@pytest.mark.parametrize("how", [*DAMAGES, "lost"])
@pytest.mark.parametrize("base", ["part", "whole"])
def test_a_lost_config_is_written_again(data, whole, copied, base, how):
    file = copied / base / "config.json"
    content = file.read_bytes()
    file.unlink() if how == "lost" else damage(file, how)
    with pytest.warns(UserWarning, match=r"config\.json .*written again from the checkpoint"):
        run = fit(data, copied / base)
    assert same(run, whole) and file.read_bytes() == content


@pytest.mark.parametrize("change", ["seed", "recipe", "epochs"])
def test_a_checkpoint_of_another_run_is_refused(data, copied, change):
    other = {
        "seed": {"seed": 4},
        "recipe": {"row": recipe("nuat-wa")},
        "epochs": {"row": recipe().with_epochs(9)},
    }[change]
    fit(data, copied / "other", **other, max_time=0)
    shutil.copy(copied / "other" / "checkpoint.pt", copied / "part")
    with pytest.raises(nuat.InputError, match=f"another run; it differs in .*{change}"):
        fit(data, copied / "part")


@pytest.mark.parametrize("how", [*DAMAGES, "lost"])
def test_damaged_weights_are_noticed(data, copied, how):
    for base in ("part", "whole"):
        file = copied / base / "model.safetensors"
        file.unlink() if how == "lost" else damage(file, how)
    with pytest.raises(nuat.InputError, match=r"model\.safetensors"):
        nuat.load_model(copied / "whole")
    with pytest.raises(nuat.InputError, match=r"model\.safetensors"):
        fit(data, copied / "whole")
    with pytest.warns(UserWarning, match=r"model\.safetensors.*the best of the epochs from now on"):
        fit(data, copied / "part")
    assert nuat.load_model(copied / "part").metadata["epoch"] == str(EPOCHS)


def test_no_changed_byte_of_the_weights_is_read(copied):
    file = copied / "whole" / "model.safetensors"
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little") + 8
    places = [*range(8), *range(8, header, 7), *range(header, len(content), 211)]
    for at in places:
        file.write_bytes(flip(content, at))
        with pytest.raises(nuat.InputError):
            read_weights(file)


def test_the_same_run_has_the_same_file(data, whole, tmp_path):
    again = fit(data, tmp_path / "again")
    for name in ("model.safetensors", "last.safetensors"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_leftovers_of_a_killed_process_are_removed(data, copied):
    names = [f"{name}.0123456789abcdef.partial" for name in ("checkpoint.fresh.pt", "config.json")]
    for name in names:
        (copied / "part" / name).write_text("half")
    fit(data, copied / "part")
    assert not list((copied / "part").glob("*.partial"))


def test_a_lost_state_before_overfitting_is_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr("nuat.training.overfitting.is_overfitting", lambda epochs: len(epochs) == 2)
    at_batch(monkeypatch, 1, 1, lambda trainer: (trainer.folder.path / "good.pt").unlink())
    with pytest.raises(nuat.InputError, match=r"good\.pt.* is missing"):
        fit(data, tmp_path / "run", recipe(on_overfitting="rollback"))


# disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EIO])
@pytest.mark.parametrize("name", ["checkpoint.fresh", "last", "metrics"])
def test_a_failed_write_is_one_line_and_loses_nothing(
    data, whole, tmp_path, monkeypatch, number, name
):
    replace_file, opened = os.replace, Path.open

    def failing(path):
        if f"/{name}." in str(path):
            raise OSError(number, os.strerror(number), str(path))

    def replace_or_fail(source, target):
        failing(target)
        replace_file(source, target)

    def open_or_fail(path, *args, **options):
        failing(path)
        return opened(path, *args, **options)

    def break_disk(trainer):
        monkeypatch.setattr("os.replace", replace_or_fail)
        if name == "metrics":
            monkeypatch.setattr(Path, "open", open_or_fail)

    at_batch(monkeypatch, 1, 1, break_disk)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        fit(data, tmp_path / "run")
    assert "same command to go on from the last checkpoint" in str(error.value)
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("*.partial"))
    assert same(fit(data, tmp_path / "run"), whole)


def test_a_dead_worker_is_one_line(data, tmp_path, monkeypatch):
    def die(trainer):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nAdvice.")

    at_batch(monkeypatch, 1, 1, die)
    with pytest.raises(
        nuat.InputError, match=r"pid 7.* is killed.*Run the same command.*WORKERS=0"
    ):
        fit(data, tmp_path / "run")


# numbers that are not finite, and too large ones


@dataclass(frozen=True)
class Bad(Method):
    """Ordinary training, but for some batches: `loss`, `gradient` or `statistics` are infinite."""

    kind: str = "loss"
    batches: tuple[tuple[int, int], ...] = ((1, 1), (1, 2))
    max_lr: float = float("inf")

    def step(self, model, x, y, ctx):
        bad = (ctx.epoch, ctx.batch) in self.batches and ctx.lr < self.max_lr
        factor = float("inf") if bad else 1.0
        z = model(x * factor if self.kind == "statistics" else x)
        if self.kind == "statistics":
            z = torch.nan_to_num(z, 0, 0, 0)
        if bad and self.kind == "gradient":
            z.register_hook(lambda gradient: gradient * factor)
        loss = nuat.ce(z, y)
        yield loss * factor if self.kind == "loss" else loss


KINDS = ["loss", "gradient", "statistics"]


def is_finite(run):
    state = run.load_checkpoint(torch.device("cpu"))
    return all(torch.isfinite(value).all() for value in state["model"].values())


@pytest.mark.parametrize("kind", KINDS)
def test_stop_is_the_default_and_keeps_a_finite_checkpoint(data, tmp_path, kind):
    with pytest.raises(nuat.NonFiniteError, match=r"--on-nonfinite skip .*--on-nonfinite rollback"):
        fit(data, tmp_path / "run", replace(recipe(), method=Bad(kind)))
    assert is_finite(Run(tmp_path / "run"))


@pytest.mark.parametrize("kind", KINDS)
def test_skip_leaves_the_batch_out(data, tmp_path, capsys, kind):
    row = replace(recipe(on_nonfinite="skip"), method=Bad(kind))
    run = fit(data, tmp_path / "run", row)
    assert [line.get("skipped", 0) for line in run.metrics] == [0, 2, 0]
    assert "WARNING: 2 of 4 batches were not finite" in capsys.readouterr().out
    assert is_finite(run) and run.finished
    # stopped after the first of them: the count, and the weights, go on
    with pytest.MonkeyPatch.context() as patch:
        at_batch(patch, 1, 1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            fit(data, tmp_path / "cut", row)
    assert same(fit(data, tmp_path / "cut", row), run)


def test_skip_changes_nothing_where_all_is_finite(data, whole, tmp_path):
    assert same(fit(data, tmp_path / "run", recipe(on_nonfinite="skip")), whole)


@dataclass(frozen=True)
class Perturbs(Method):
    """A method that takes its loss, which is NaN once, at other weights, and puts them back."""

    def step(self, model, x, y, ctx):
        weights = [weight.data for weight in model.parameters()]
        torch._foreach_mul_(weights, 2)
        try:
            yield nuat.ce(model(x), y) * (float("nan") if (ctx.epoch, ctx.batch) == (1, 1) else 1)
        finally:
            torch._foreach_div_(weights, 2)


def test_skip_undoes_a_step_that_was_left_open(data, tmp_path, monkeypatch):
    seen = []
    step = Trainer.train_batch

    def remember(self, inputs):
        weights = {k: v.clone() for k, v in self.plan.model.state_dict().items()}
        if self.epoch == 1 and self.batch in (1, 2):
            seen.append(weights)
        step(self, inputs)

    monkeypatch.setattr(Trainer, "train_batch", remember)
    fit(data, tmp_path / "run", replace(recipe(on_nonfinite="skip"), method=Perturbs()))
    before, after = seen
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_of_which_every_batch_is_skipped_stops(data, tmp_path):
    bad = Bad("loss", tuple((1, batch) for batch in range(BATCHES)))
    with pytest.raises(nuat.NonFiniteError, match="as in every other batch of the epoch"):
        fit(data, tmp_path / "run", replace(recipe(on_nonfinite="skip"), method=bad))


def test_rollback_halves_the_learning_rate_until_it_works(data, tmp_path, capsys):
    # not finite in epoch 3 as long as the learning rate is above 0.03
    @dataclass(frozen=True)
    class Diverges(Method):
        def step(self, model, x, y, ctx):
            loss = nuat.ce(model(x), y)
            yield (
                loss * float("nan")
                if (ctx.epoch, ctx.batch, ctx.lr > 0.03) == (2, 1, True)
                else loss
            )

    row = replace(recipe(lr=0.1, on_nonfinite="rollback"), method=Diverges())
    run = fit(data, tmp_path / "run", row)
    assert run.finished and [line["epoch"] for line in run.metrics] == [1, 2, 3]
    assert [line["lr"] for line in run.metrics] == pytest.approx([0.1, 0.025, 0.025])
    shown = capsys.readouterr().out
    assert shown.count("Back to the state after epoch 1, with 0.5 times") == 1
    assert shown.count("Back to the state after epoch 1, with 0.25 times") == 1
    assert "Training stopped" not in shown


def test_rollback_ends_where_no_learning_rate_helps(data, tmp_path, capsys):
    row = replace(recipe(on_nonfinite="rollback"), method=Bad("loss", ((0, 1),)))
    with pytest.raises(nuat.NonFiniteError, match="epoch 1, batch 2 of 4"):
        fit(data, tmp_path / "run", row)
    assert capsys.readouterr().out.count("Back to the state after epoch 0") == 10


def test_a_network_whose_logits_overflow_is_no_checkpoint(data, tmp_path, monkeypatch):
    def blow_up(trainer):
        with torch.no_grad():
            for weight in trainer.plan.model.parameters():
                weight.mul_(1e30)
            save_checkpoint(trainer)

    at_batch(monkeypatch, 1, 1, blow_up)
    with pytest.raises(nuat.NonFiniteError):
        fit(data, tmp_path / "run")
    state = Run(tmp_path / "run").load_checkpoint(torch.device("cpu"))
    assert max(float(value.abs().max()) for value in state["model"].values()) < 1e6


@pytest.mark.parametrize(
    "options",
    [
        "--set 'lr=StepDecay(1e300, at=(0, 1), by=1e308)'",
        "--set lr=1e999",
        "--set lr=-1",
        "--set momentum=2",
        "--set momentum=nan",
        "--set 'momentum=LinearRamp(3, epochs=1)'",
        "--set batch_size=99999999999999999999",
        "--set augment.pad=1000000000000",
        f"--eps {'9' * 400}",
        f"--epochs {'9' * 30}",
        f"--seed {'9' * 5000}",
        "--on-nonfinite never",
    ],
)
def test_absurd_numbers_are_one_line(call, tmp_path, options):
    outcome = call(f"train normal --model 'small-cnn(width=4)' {options} --out {tmp_path / 'run'}")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and len(outcome.err) < 1000
    assert outcome.err.startswith("error: ") and not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["lr", "momentum"])
def test_a_schedule_that_goes_wrong_within_an_epoch_is_refused(data, tmp_path, field):
    low = {"lr": 0.1, "momentum": 0.9}[field]
    peak = {"lr": -1.0, "momentum": 2.0}[field]
    points = ((0.0, low), (0.4, low), (0.5, peak), (0.6, low))
    row = replace(recipe("normal"), **{field: nuat.Piecewise(points)})
    with pytest.raises(nuat.InputError, match=r"after 0\.5 epochs, lr is .* momentum in \[0, 1\)"):
        fit(data, tmp_path / "run", row)


def test_so_many_epochs_begin_at_once(call, tmp_path):
    line = "train normal --model 'small-cnn(width=4)' --epochs 99999999999 --max-time 0s"
    outcome = call(f"{line} --out {tmp_path / 'run'}")
    assert outcome.status == 75


def test_reproduce_names_no_row_twice(call, tmp_path):
    for words in ("--rows normal,normal", "--rows normal --attack fgsm --attack fgsm"):
        outcome = call(f"reproduce digits {words} --out {tmp_path / 'table'}")
        assert outcome.status == 2 and "more than once" in outcome.err
        assert not (tmp_path / "table").exists()


# memory


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a memory object"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_out_of_memory_advises_a_batch_size_and_says_what_it_does_to_lam(
    data, tmp_path, monkeypatch, error
):
    def run_out(trainer):
        raise error

    at_batch(monkeypatch, 1, 1, run_out)
    with pytest.raises(
        nuat.InputError, match=r"batches of 16 .*batch_size=8.*For 8 .*sqrt\(8/64\)"
    ):
        fit(data, tmp_path / "run", recipe("nuat-wa"))


def test_another_runtime_error_is_not_taken_for_memory(data, tmp_path, monkeypatch):
    def fail(trainer):
        raise RuntimeError("size mismatch")

    at_batch(monkeypatch, 1, 1, fail)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fit(data, tmp_path / "run")


# hostile contents with a right checksum


@pytest.mark.parametrize(
    "change", [{"metrics": [{"epoch": []}]}, {"config": {}}, {"lr_factor": 7}, {"skipped": -1}]
)
def test_a_forged_checkpoint_is_refused(data, copied, change):
    file = copied / "part" / "checkpoint.pt"
    state = torch.load(file, weights_only=True) | change
    del state["checksum"]
    torch.save(with_checksum(state), file)
    with pytest.raises(nuat.InputError, match="the checkpoint in"):
        fit(data, copied / "part")


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl", "config.json"])
@pytest.mark.filterwarnings("ignore")
def test_a_fifo_is_not_waited_for(data, whole, copied, name):
    (copied / "part" / name).unlink()
    os.mkfifo(copied / "part" / name)
    if name == "checkpoint.pt":
        assert same(fit(data, copied / "part"), whole)
    else:
        with pytest.raises(nuat.InputError, match=f"{name} is a FIFO, but must be a file"):
            fit(data, copied / "part")


def test_metrics_are_refused_by_a_report_and_written_again_by_training(data, copied, call):
    file = copied / "whole" / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["val_robust"] = 1.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = call(f"report {copied / 'whole'}")
    assert outcome.status == 2 and "line 2 of" in outcome.err and "nuat train" in outcome.err
