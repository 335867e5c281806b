"""`nuat bench`: its figures are consistent, and its errors name the fix."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

import nuat
from nuat import cli
from nuat.models import build_model
from nuat.profiling import SECTIONS, Candidate, benchmark
from nuat.profiling.costs import paired_ratio
from nuat.profiling.timers import SectionTimer, TimedModel

DATA = nuat.Splits(
    *(nuat.InMemoryDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 10) for _ in range(3)),
    classes=tuple("0123456789"),
    name="noise",
)
CPU = torch.device("cpu")


def row(name, **changes):
    small = {"model": "small-cnn(width=4)", "batch_size": 8}
    return replace(nuat.get_recipe(name, "digits"), **small | changes)


def test_a_table_of_costs():
    names = ["nuat-wa", "awp", "atf", "nuat2-wa"]
    found = benchmark([row(name) for name in names], DATA, CPU, rounds=2)
    costs = {cost["name"]: cost for cost in found["costs"]}
    assert list(costs) == ["standard", *names]
    assert costs["standard"]["relative_time"] == (1, 1, 1)
    assert costs["nuat-wa"]["forward_equivalents"] == pytest.approx(8, abs=0.4)
    for cost in costs.values():
        middle, low, high = cost["relative_time"]
        assert 0 < low <= middle <= high
        assert cost["images_per_s"] * cost["ms"] == pytest.approx(8000)
        assert list(cost["time_shares"]) == [*SECTIONS]
        assert sum(cost["time_shares"].values()) == pytest.approx(1)
        assert cost["gflops"] > 0 and cost["peak_mib"] > 10
    assert costs["awp"]["time_shares"]["attack"] > costs["standard"]["time_shares"]["attack"]
    assert json.loads(json.dumps(found))["batch_size"] == 8


def test_ratios_are_paired():
    assert paired_ratio([2, 40, 6], [1, 10, 2]) == (3.0, 2.5, 3.5)
    assert paired_ratio([3], [2]) == (1.5, 1.5, 1.5)


def test_each_pass_is_counted_in_its_section():
    """The clock advances one second at each reading, so every section takes one second."""
    ticks = iter(range(100))
    timer = SectionTimer(lambda: next(ticks))
    f = TimedModel(build_model("small-cnn(width=4)", 10, 1), timer)
    x, y = DATA.train.batch(torch.arange(4))
    for _ in nuat.NuAT().step(f, x, y, nuat.StepContext(1, 1)):
        timer.end_section("forward")
    # The attack comes before the clean pass; each pass and the loss count as forward.
    assert timer.seconds == {**dict.fromkeys(SECTIONS, 0), "attack": 2, "forward": 3}


def test_a_candidate_trains_the_model():
    f = build_model("small-cnn(width=4)", 10, 1)
    before = f.head.weight.clone()
    candidate = Candidate(row("nuat-wa", lr=nuat.Constant(0.1)), f, DATA.train)
    for _ in range(3):
        candidate.run_round()
    assert not torch.equal(f.head.weight, before)
    assert f.features[1].num_batches_tracked == 3 * 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nuta"], "unknown recipe 'nuta'; did you mean 'nuat'?"),
        (["nuat", "--rounds", "0"], "rounds is 0"),
        (["nuat", "--batch-size", "5000"], "more than the 1197 training images of digits"),
        (["nuat", "--model", "smal-cnn"], "did you mean 'small-cnn'?"),
        (["nuat", "--set", "precision=fp8"], "unknown precision 'fp8'"),
        (["nuat", "--data", "cifar10", "--data-dir", "gone"], "--data-dir gone: there is no such"),
        (["nuat", "--out", "nowhere/bench.json"], "there is no folder nowhere"),
        (["nuat", "--out", "."], "--out . is a folder"),
        (["nuat", "--set", "precison=bf16"], "did you mean 'precision'?"),
    ],
)
def test_an_invalid_argument_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nuat", "bench", *arguments, "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert words in error
    assert not list(tmp_path.iterdir())


def test_cuda_graphs_need_a_gpu():
    with pytest.raises(nuat.InputError, match="CUDA graphs need a cuda device"):
        benchmark([row("nuat")], DATA, CPU, cuda_graphs=True)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    model = ["--model", "small-cnn(width=4)", "--rounds", "1", "--set", "precision=bf16"]
    monkeypatch.setattr(sys, "argv", ["nuat", "bench", "nuat", *model, "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "optimizer" in shown
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [cost["name"] for cost in found["costs"]] == ["standard", "nuat"]
    assert (found["precision"], found["rounds"]) == ("bf16", 1)


def test_images_read_from_files(tmp_path):
    """Images in files are not a tensor in memory."""
    for split in ("train", "val", "test"):
        for label in "ab":
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for place in range(4):
                Image.new("RGB", (8, 8), (place * 60, 9, 99)).save(folder / f"{place}.png")
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8)")
    (standard,) = benchmark([row("normal", batch_size=4)], data, CPU, rounds=1)["costs"][:1]
    assert standard["ms"] > 0
