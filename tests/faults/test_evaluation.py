"""An evaluation whose files are damaged, foreign or lost, or which is ended early."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import nuat
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult, runner
from nuat.runtime.signals import OUT_OF_TIME, Stopped, out_of_time

ATTACKS = ["pgd-3(restarts=2)"]
ASKED = {"indices": range(24), "batch_size": 8}


@pytest.fixture(scope="module")
def net():
    """A linear network, fitted to one-hot labels by least squares."""
    x, y = nuat.load_dataset("digits").train.batch(torch.arange(400))
    linear = nn.Linear(64, 10, bias=False)
    fitted = torch.linalg.lstsq(x.flatten(1), nn.functional.one_hot(y, 10).float(), driver="gelsd")
    linear.weight.data = fitted.solution.T.contiguous()
    return nn.Sequential(nn.Flatten(), linear)


@pytest.fixture(scope="module")
def images():
    return nuat.load_dataset("digits").test


def evaluate(net, images, out, attacks=ATTACKS, eps=0.02, **more):
    more = ASKED | {"save_adversarial": True} | more
    return nuat.evaluate(net, images, nuat.Linf(eps), attacks, out=out, **more)


@pytest.fixture(scope="module")
def whole(net, images, tmp_path_factory):
    """A finished evaluation; its folder is copied, never changed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = evaluate(net, images, out)
    assert 0 < result.robust_accuracy(ATTACKS[0]) < result.clean_accuracy, "nothing to lose"
    return out


@pytest.fixture
def out(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


RESULTS = ("verdicts.jsonl", "adversarial.safetensors")


def same_results(out, whole):
    return all((out / name).read_bytes() == (whole / name).read_bytes() for name in RESULTS)


def log_lines(out):
    return (out / "log-0.jsonl").read_text().splitlines(keepends=True)


def changed(line, **fields):
    return json.dumps(json.loads(line) | fields) + "\n"


def foreign(net, images, out):
    """The log of another evaluation with equal images and attacks, of another seed."""
    evaluate(net, images, out / "other", seed=1)
    return log_lines(out / "other")


DAMAGES = {
    "cut": lambda lines: [lines[0][:40] + "\n", *lines[1:]],
    "NULs": lambda lines: ["\0" * len(lines[0]) + "\n", *lines[1:]],
    "another value": lambda lines: [changed(lines[0], bad_gradients=1), *lines[1:]],
    "of another run": lambda lines: [changed(lines[0], run=1), *lines[1:]],
    "no checksum": lambda lines: [changed(lines[0], checksum=None), *lines[1:]],
    "joined": lambda lines: [lines[0].strip() + lines[1], *lines[2:]],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_named_and_its_images_are_attacked_again(net, images, whole, out, damage):
    (out / "log-0.jsonl").write_text("".join(DAMAGES[damage](log_lines(out))))
    with pytest.warns(UserWarning, match=r"line \d of .*log-0.jsonl is not used"):
        evaluate(net, images, out)
    assert same_results(out, whole)


def test_a_line_counts_once(net, images, whole, out):
    (out / "log-0.jsonl").write_text("".join([*log_lines(out), log_lines(out)[0]]))
    evaluate(net, images, out)
    assert same_results(out, whole)


@pytest.mark.parametrize("line", [0, 1, -1])
def test_the_images_of_a_lost_line_are_attacked_again(net, images, whole, out, line):
    lines = log_lines(out)
    del lines[line]
    (out / "log-0.jsonl").write_text("".join(lines))
    evaluate(net, images, out)
    assert same_results(out, whole)


def test_a_line_of_another_evaluation_is_not_used(net, images, whole, out, tmp_path):
    (out / "log-0.jsonl").write_text("".join(foreign(net, images, tmp_path)))
    with pytest.warns(UserWarning, match="is not used"):
        evaluate(net, images, out)
    assert same_results(out, whole)


def test_no_changed_byte_of_a_log_changes_a_result(net, images, whole, out):
    content = bytearray((out / "log-0.jsonl").read_bytes())
    for position in range(0, len(content), len(content) // 25):
        flipped = content.copy()
        flipped[position] ^= 1 << position % 8
        (out / "log-0.jsonl").write_bytes(flipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluate(net, images, out)
        assert same_results(out, whole)


def test_lost_adversarial_images_are_made_again(net, images, whole, out):
    stored = sorted(out.glob("adversarial-*.safetensors"))
    stored[0].unlink()
    with pytest.warns(UserWarning, match=f"{stored[0].name} of the line is lost"):
        evaluate(net, images, out)
    assert same_results(out, whole)


def test_damaged_adversarial_images_are_named(net, images, whole, out):
    path = sorted(out.glob("adversarial-*.safetensors"))[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name} is damaged: delete it"):
        evaluate(net, images, out)
    path.unlink()
    with pytest.warns(UserWarning, match="is lost"):
        evaluate(net, images, out)
    assert same_results(out, whole)


def test_no_changed_byte_of_scores_is_accepted(whole):
    content = (whole / "scores.json").read_bytes()
    right = EvaluationResult.from_dict(json.loads(content))
    for position in range(0, len(content), len(content) // 200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 7
        try:
            result = EvaluationResult.from_dict(json.loads(flipped))
        except ValueError:  # InputError is one, and so are the errors of the JSON reader
            continue
        assert result == right, flipped[position - 20 : position + 20]


def test_a_log_that_is_a_link_or_no_file_is_refused(net, images, out, tmp_path):
    log, precious = out / "log-0.jsonl", tmp_path / "precious"
    precious.write_text("years\n")
    log.unlink()
    log.symlink_to(precious)
    with pytest.raises(InputError, match="is a link that leads out of"):
        evaluate(net, images, out)
    assert precious.read_text() == "years\n"
    for name in ("log-0.jsonl", "log-7.jsonl", "config.json", "lock-0"):
        folder = tmp_path / name
        shutil.copytree(out, folder, symlinks=True)
        (folder / "log-0.jsonl").unlink()
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(InputError, match=r"is a FIFO|not an evaluation"):
            evaluate(net, images, folder)


def test_an_evaluation_that_is_out_of_time_goes_on(net, images, whole, tmp_path, monkeypatch):
    out, attack, batches = tmp_path / "out", runner.run_attack, []
    monkeypatch.setattr(
        runner.EvaluationRequest, "is_over", lambda request: len(batches) > 2, raising=True
    )
    monkeypatch.setattr(runner, "run_attack", lambda *a: (batches.append(1), attack(*a))[1])
    with pytest.raises(Stopped, match="run the same command again") as stopped:
        evaluate(net, images, out, max_time=5)
    assert stopped.value.status == OUT_OF_TIME
    assert len(log_lines(out)) == 3 and not (out / "scores.json").exists()
    monkeypatch.undo()
    evaluate(net, images, out)
    assert same_results(out, whole)


def test_the_time_may_be_over_when_everything_is_done(net, images, whole, out):
    assert evaluate(net, images, out, max_time=0).robust_accuracy(ATTACKS[0]) > 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", True])
def test_a_time_that_is_none_is_refused(net, images, tmp_path, value):
    with pytest.raises(InputError, match="max_time is"):
        evaluate(net, images, tmp_path / "out", max_time=value)
    with pytest.raises(InputError, match="give out"):
        nuat.evaluate(net, images, nuat.Linf(0.1), ATTACKS, samples=10, max_time=5)


COMMAND = """
import os, sys
import nuat
from nuat.cli import main
from nuat.evaluation import runner
attack, batches, number = runner.run_attack, [], int(sys.argv.pop(1))
def run_attack(*args):
    batches.append(1)
    if len(batches) == 3:
        os.kill(os.getpid(), number)
    return attack(*args)
runner.run_attack = run_attack
@nuat.register_model("flat")
def flat(classes, channels):
    import torch
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes, bias=False))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_an_evaluation_that_goes_on_later(net, images, whole, tmp_path, number):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    arguments = [
        *("evaluate", "net.pt", "--model", "flat", "--data", "digits", "--eps", "0.02"),
        *("--attack", ATTACKS[0], "--indices", "0-23", "--batch-size", "8", "--out", "out"),
        *("--save-adversarial",),
    ]

    def run(ending):
        return subprocess.run(
            [sys.executable, "-c", COMMAND, str(int(ending)), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    ended = run(number)
    assert ended.returncode == 128 + number, ended.stderr
    assert f"ended by {signal.Signals(number).name}; run the same command again" in ended.stderr
    assert len(log_lines(tmp_path / "out")) == 2 and not list(tmp_path.glob("out/lock*"))
    assert run(0).returncode == 0  # signal 0 does nothing
    assert same_results(tmp_path / "out", whole)


def full_after(monkeypatch, writes):
    """Let every flush to the disk after the first `writes` ones fail, as on a full disk."""
    fsync, done = os.fsync, []

    def flush(descriptor):
        done.append(descriptor)
        if len(done) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 5, 8, 11, 13, 14])
def test_a_full_disk_is_one_error_and_nothing_is_lost(
    net, images, whole, tmp_path, monkeypatch, writes
):
    out = tmp_path / "out"
    with monkeypatch.context() as full:
        full_after(full, writes)
        with pytest.raises(OSError, match=r"cannot be written: No space left on device"):
            evaluate(net, images, out)
        names = [path.name for path in out.glob("*")]
        assert not [name for name in names if name.endswith(".partial") or "lock" in name]
    for file in out.glob("*.json*"):
        assert file.read_text().endswith("\n") or not file.stat().st_size
    evaluate(net, images, out)
    assert same_results(out, whole)


def test_leftovers_of_a_killed_evaluation_are_removed(net, images, out):
    left = out / "verdicts.jsonl.0123456789abcdef.partial", out / "x.0123456789abcdef.partial"
    for path in left:
        path.write_text("half")
    evaluate(net, images, out)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(("ranks", "status"), [("1", OUT_OF_TIME), ("2", 0)])
def test_the_exit_status_after_max_time(call, monkeypatch, ranks, status):
    """torchrun would start the ranks again after any other status than 0."""
    monkeypatch.setenv("WORLD_SIZE", ranks)
    monkeypatch.setattr("nuat.cli.app.app", lambda **_: (_ for _ in ()).throw(out_of_time(5)))
    outcome = call("evaluate run --max-time 5s")
    assert outcome.status == status and "ended after --max-time, 5 s" in outcome.err
