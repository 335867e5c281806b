"""The benchmark scripts run; what they print here means nothing."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_gpu(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("gpu.py", "--tiny", "--out", tmp_path, monkeypatch=monkeypatch)
    assert stopped.value.code == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(found["checks"].values()) and len(found["checks"]) == 20
    methods = {"standard", "nuat", "nuat-wa", "nuat2-wa", "fbf", "pgd-at", "trades"}
    rows = {(row["method"], row["mode"]): row for row in found["rows"]}
    assert set(rows) == {(method, mode) for method in methods for mode in ("eager", "graphs")}
    assert all(row["recorded"] for (_, mode), row in rows.items() if mode == "graphs")
    assert "checks: 20 of 20 hold" in (tmp_path / "gpu.log").read_text()


def test_gpu_attacks(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        run("gpu_attacks.py", "--tiny", "--out", tmp_path, monkeypatch=monkeypatch)
    assert stopped.value.code == 0
    found = json.loads((tmp_path / "gpu_attacks.json").read_text())
    assert [check["verdicts_that_differ"] for check in found["checks"]] == [0, 0]
    assert all(0 < check["cpu"] < check["images"] for check in found["checks"])
    rows = [row for row in found["rows"] if row["search"] != "torchattacks, fp32"]
    assert len(rows) == 5 and all(row["stood"] == row["batch"] for row in rows)
    assert "ms an iterate" in (tmp_path / "gpu_attacks.log").read_text()


def test_gpu_cifar10_stops_in_time_and_goes_on(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    small = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WORK": str(tmp_path / "work"),
        "OUT": str(out),
        "DATA": "digits",
        "MORE": "--epochs 12 --model small-cnn(width=4) --device cpu",
        "ATTACKS": "--attack pgd-2 --samples 50 --device cpu",
    }
    script = ["bash", str(BENCHMARKS / "gpu_cifar10.sh")]
    for limit in ("16", "600"):
        subprocess.run([*script, limit], env=os.environ | small, check=True, capture_output=True)
        if limit == "16":
            assert "time is up after epoch" in (out / "gpu_cifar10.log").read_text()
            assert not (out / "scores.json").exists()
    epochs = [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").open()]
    assert epochs == list(range(1, 13))
    assert json.loads((out / "scores.json").read_text())["attacks"].keys() == {"pgd-2"}
    parts = sorted(out.glob("weights.*"))
    kept = (tmp_path / "work" / "run" / "model.safetensors").read_bytes()
    assert b"".join(part.read_bytes() for part in parts) == kept


@pytest.mark.parametrize("script", ["gpu.py", "gpu_attacks.py"])
def test_gpu_without_one_says_so(script, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA GPU here; --tiny"):
        run(script, monkeypatch=monkeypatch)
