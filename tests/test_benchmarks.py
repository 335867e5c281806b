"""The benchmark scripts run; what they print here means nothing."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy
import pytest

import nuat
from nuat.data.cifar import CIFAR10_MD5

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name, *arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")


def test_training(tmp_path, monkeypatch, capsys):
    """Its gate too: exact changes give the published weights, or it stops."""
    out = tmp_path / "training.json"
    run("training.py", "--tiny", "--out", out, monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert shown.count("the same bits") >= 8
    ladders = json.loads(out.read_text())["ladders"]
    assert [ladder["recipe"] for ladder in ladders] == ["nuat-wa", "nuat2-wa"]
    assert all(ladder["arms"]["published"]["faster"] == [1, 1, 1] for ladder in ladders)


def test_gpu_attacks(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        run("gpu/attacks.py", "--tiny", "--out", tmp_path, monkeypatch=monkeypatch)
    assert stopped.value.code == 0
    found = json.loads((tmp_path / "attacks.json").read_text())
    assert [check["verdicts_that_differ"] for check in found["checks"]] == [0, 0]
    assert all(0 < check["cpu"] < check["images"] for check in found["checks"])
    rows = [row for row in found["rows"] if row["search"] != "torchattacks, fp32"]
    assert len(rows) == 5 and all(row["stood"] == row["batch"] for row in rows)
    assert "ms an iterate" in (tmp_path / "attacks.log").read_text()


@pytest.fixture
def gpu_run(tmp_path):
    """Run stages of the GPU run on a CPU, on few digits; return the folder of its results."""
    data = nuat.load_dataset("digits")
    arrays = {}
    for split, count in (("train", 256), ("val", 40), ("test", 40)):
        arrays[f"x_{split}"] = data[split].x[:count].numpy()
        arrays[f"y_{split}"] = data[split].y[:count].numpy()
    carry, out = tmp_path / "carry" / "small" / "digits", tmp_path / "out"
    carry.mkdir(parents=True)
    numpy.savez(carry / "digits.npz", **arrays)
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TINY": "1",
        "CARRY": str(tmp_path / "carry"),
        "WORK": str(tmp_path / "work"),
        "OUT": str(out),
        "ATTACKS": "pgd-2 square-5/20",
    }

    def run_stages(*stages, kill=False):
        script = ["bash", str(BENCHMARKS / "gpu" / "run.sh"), *stages]
        run = subprocess.Popen(
            script,
            env=os.environ | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if kill:
            metrics = tmp_path / "work" / "cifar10" / "run" / "metrics.jsonl"
            # the checkpoint of an epoch is written after its metrics
            while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 1):
                assert run.poll() is None
                time.sleep(0.01)
            # a stage has a process group of its own, in the session of the script
            for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
                with contextlib.suppress(ProcessLookupError):
                    if os.getsid(process) == run.pid:
                        os.kill(process, signal.SIGKILL)
        run.wait()
        return out

    return run_stages


def test_gpu_run_is_killed_and_goes_on(gpu_run, tmp_path):
    gpu_run("train:200", kill=True)
    run = tmp_path / "work" / "cifar10" / "run"
    assert len((run / "metrics.jsonl").read_text().splitlines()) < 12
    out = gpu_run("train:200", "attack:200", "pack")
    log = (out / "run.log").read_text()
    assert "resuming after epoch" in log and "every attack is through" in log
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").open()]
    assert epochs == list(range(1, 13))
    with tarfile.open(out / "results.tar.xz") as archive:
        names = archive.getnames()
    assert "cifar10/run/metrics.jsonl" in names and "train.log" in names
    assert sum(name.endswith("verdicts.jsonl") for name in names) == 3
    assert (out / "weights").read_bytes() == (run / "model.safetensors").read_bytes()


def test_gpu_steps(gpu_run, tmp_path):
    gpu_run("steps:200")
    rows = [json.loads(line) for line in (tmp_path / "work" / "steps.jsonl").open()]
    assert rows[0]["name"] == "nuat-wa bf16 8 graphs"
    assert not any("error" in row for row in rows)


def test_gpu_attacks_smoke(gpu_run):
    """On the pretended GPU."""
    log = (gpu_run("attacks_smoke:500") / "attacks_smoke.log").read_text()
    assert "8 of 8 checks hold" in log and "LEFT OUT, no time" not in log


def test_gpu_run_without_time_says_so(gpu_run):
    log = (gpu_run("steps:1", "nonsense") / "run.log").read_text()
    assert "steps: LEFT OUT, no time" in log and "there is no stage nonsense" in log


def test_packs_of_cifar10_are_compared_with_the_sums_of_the_loader():
    packs = runpy.run_path(str(BENCHMARKS / "gpu" / "pack_cifar10.py"))
    assert packs["MD5"].items() <= CIFAR10_MD5.items()


def test_gpu_without_one_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA GPU here; --tiny"):
        run("gpu/attacks.py", monkeypatch=monkeypatch)


def test_classes_goes_on_with_what_is_not_done(tmp_path):
    """In a process of its own, because the script registers a model."""
    small = f"""
import classes, pathlib
classes.RESULTS = pathlib.Path({str(tmp_path / "results")!r})
classes.EPOCHS = dict.fromkeys(classes.EPOCHS, 1)
classes.PAIRS = {{"train": 70, "val": 100, "test": 40}}
classes.ATTACK = "gama-2"
classes.PARTS = {{"a": classes.Part((30,), (classes.PLAIN, classes.RULE)),
                  "b": classes.Part((2,), classes.some("gat-wa", 3.0, eps=0.2), seeds=(0,))}}
classes.main()
"""
    for parts in (["a:1"], ["a:1", "b"]):
        command = [sys.executable, "-c", small, str(tmp_path / "runs"), *parts]
        done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "results" / "runs.json").read_text())
    found = {(run["classes"], run["arm"]): run for run in runs}
    rule = found[30, "nuat-wa rule"]
    assert set(found) == {(30, "nuat-wa x 1"), (30, "nuat-wa rule"), (2, "gat-wa x 3 eps 0.2")}
    assert 1 <= rule["metrics"][-1]["effective_rank"] <= 30 and 0 <= rule["gama-2"] <= 1
    assert done.stdout.count("gat-wa x 3 eps 0.2") == 1
    assert done.stdout.count("resuming after epoch 1") == 2
