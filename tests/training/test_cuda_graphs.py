"""A recorded step is the step. Without a GPU the recorder is one that runs the work at each replay.

What a CUDA graph does beyond that, keep the device's memory and order of work, is checked by
benchmarks/gpu.py where there is one.
"""

from dataclasses import replace

import pytest
import torch

import nuat
from nuat.data import InMemoryDataset
from nuat.models import build_model
from nuat.recipes import list_recipes
from nuat.training.cuda_graphs import Graphs
from nuat.training.train_step import TrainStep

RECORDABLE = ["normal", "fbf", "r-mgm", "gat", "nuat", "nuat-wa", "nuat2", "nuat2-wa", "trades-wa"]
ROWS = {row.name: row for row in list_recipes() if row.data == "cifar10"}
IMAGES = InMemoryDataset(torch.rand(28, 3, 8, 8), torch.arange(28) % 10)


def trained(row, graphs=None, epochs=(0, 40)):
    """Weights, averages, losses and notes after an epoch each of 4 batches, the last one short."""
    torch.manual_seed(0)
    row = replace(row, batch_size=8, model="small-cnn(width=4)")
    descent = TrainStep(row, build_model(row.model, 10, 3), batches=4, seed=1, graphs=graphs)
    seen = []
    for epoch in epochs:
        for batch, (x, y) in enumerate(IMAGES.shuffled_batches(8, seed=epoch)):
            t = descent.begin(epoch, batch)
            seen += [*descent.step(x, y, t), *t.logs.values()]
    return [*descent.f.state_dict().values(), *descent.kept.state_dict().values(), *seen]


def equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def once(work):
    """Stands for a recorder: nothing is done now, and all of it at each replay."""
    return work


@pytest.mark.parametrize("name", [*RECORDABLE, "awp", "pgd-at"])
def test_a_recorded_step_is_the_step(name):
    said, epochs = [], (0, 1, 40, 41)
    graphs = Graphs(ROWS[name].method, said.append, once)
    with_graphs = trained(ROWS[name], graphs, epochs)
    assert not said and len(graphs.tapes) == ROWS[name].method.graph_period
    assert equal(with_graphs, trained(ROWS[name], epochs=epochs))


def test_a_recording_lasts_an_epoch_and_not_longer():
    played = []

    def record(work):
        work()  # as if on the tape: what a replay does stays what it was

        def replay():
            played.append(None)
            work()

        return replay

    row = replace(ROWS["nuat"], batch_size=8)
    graphs = Graphs(row.method, print, record)
    trained(row, graphs, (0, 1, 2))
    # of the first epoch's three whole batches none, as four are run to warm up
    assert len(played) == 2 + 3
    assert graphs.epoch == 2


@pytest.mark.parametrize("name", ["atf", "nuat-h"])
def test_a_method_that_makes_no_promise_is_run_as_ever_and_it_is_said(name):
    said = []
    graphs = Graphs(ROWS[name].method, said.append, once)
    assert equal(trained(ROWS[name], graphs), trained(ROWS[name]))
    assert len(said) == 1 and "cannot be recorded as a CUDA graph" in said[0]


def test_a_recording_that_fails_changes_nothing_and_is_said_once():
    def fail(work):
        torch.rand(3)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    said = []
    graphs = Graphs(ROWS["nuat-wa"].method, said.append, fail)
    assert equal(trained(ROWS["nuat-wa"], graphs), trained(ROWS["nuat-wa"]))
    assert said == [
        "NuAT cannot be recorded as a CUDA graph (operation not permitted when stream is "
        "capturing): going on without"
    ]


class Twice(nuat.Standard):
    """Promises what it does not keep."""

    def step(self, f, x, y, t):
        yield nuat.ce(f(x), y)
        yield nuat.ce(f(x), y)


class Remembers(nuat.Standard):
    """Promises what it does not keep."""

    def step(self, f, x, y, t):
        t.memory["seen"] = 1
        yield nuat.ce(f(x), y)


@pytest.mark.parametrize("method", [Twice(), Remembers()])
def test_a_broken_promise_is_noticed(method):
    def record(work):
        work()
        return work

    said = []
    trained(replace(ROWS["normal"], method=method), Graphs(method, said.append, record))
    assert len(said) == 1 and "more than once, or remembers" in said[0]


def test_graphs_need_a_gpu(tmp_path):
    with pytest.raises(nuat.InputError, match="CUDA graphs need a cuda device, but this is cpu"):
        nuat.fit("nuat", data="digits", out=tmp_path / "run", device="cpu", graphs=True)
    assert not (tmp_path / "run").exists()
