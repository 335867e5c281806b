"""A captured step equals the step in Python.

Without a GPU, `capture` returns a function that runs the step again. benchmarks/gpu.py checks real
CUDA graphs.
"""

from dataclasses import replace

import pytest
import torch

import nuat
from nuat.data import InMemoryDataset
from nuat.models import build_model
from nuat.recipes import list_recipes
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.train_step import TrainStep

CAPTURABLE = ["normal", "fbf", "r-mgm", "gat", "nuat", "nuat-wa", "nuat2", "nuat2-wa", "trades-wa"]
ROWS = {row.name: row for row in list_recipes() if row.data == "cifar10"}
IMAGES = InMemoryDataset(torch.rand(28, 3, 8, 8), torch.arange(28) % 10)


def train(row, cuda_graphs=None, epochs=(0, 40)):
    """Weights, EMA, losses and notes after epochs of 4 batches, of which the last is smaller."""
    torch.manual_seed(0)
    row = replace(row, batch_size=8, model="small-cnn(width=4)")
    train_step = TrainStep(
        row, build_model(row.model, 10, 3), batches=4, seed=1, cuda_graphs=cuda_graphs
    )
    outputs = []
    for epoch in epochs:
        for batch, (x, y) in enumerate(IMAGES.shuffled_batches(8, seed=epoch)):
            ctx = train_step.prepare(epoch, batch)
            outputs += [*train_step.step(x, y, ctx), *ctx.logs.values()]
    models = (train_step.model, train_step.eval_model)
    return [*(value for model in models for value in model.state_dict().values()), *outputs]


def equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def run_at_replay(work):
    """A stand-in for `capture_cuda_graph`: the work is done at each replay."""
    return work


@pytest.mark.parametrize("name", [*CAPTURABLE, "awp", "pgd-at"])
def test_a_captured_step_equals_the_step(name):
    messages, epochs = [], (0, 1, 40, 41)
    graphs = CudaGraphs(ROWS[name].method, messages.append, run_at_replay)
    with_graphs = train(ROWS[name], graphs, epochs)
    assert not messages and len(graphs.steps) == ROWS[name].method.graph_period
    assert equal(with_graphs, train(ROWS[name], epochs=epochs))


def test_steps_are_captured_anew_in_every_epoch():
    replays = []

    def capture(work):
        work()

        def replay():
            replays.append(None)
            work()

        return replay

    row = replace(ROWS["nuat"], batch_size=8)
    graphs = CudaGraphs(row.method, print, capture)
    train(row, graphs, (0, 1, 2))
    # epochs have three full batches; the first four of the run are the warm-up
    assert len(replays) == 2 + 3
    assert graphs.epoch == 2


@pytest.mark.parametrize("name", ["atf", "nuat-h"])
def test_a_method_that_cannot_be_captured_runs_eagerly_with_a_message(name):
    messages = []
    graphs = CudaGraphs(ROWS[name].method, messages.append, run_at_replay)
    assert equal(train(ROWS[name], graphs), train(ROWS[name]))
    assert len(messages) == 1 and "cannot be captured as a CUDA graph" in messages[0]


def test_a_failed_capture_changes_nothing_and_prints_one_message():
    def fail(work):
        torch.rand(3)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    messages = []
    graphs = CudaGraphs(ROWS["nuat-wa"].method, messages.append, fail)
    assert equal(train(ROWS["nuat-wa"], graphs), train(ROWS["nuat-wa"]))
    assert messages == [
        "NuAT cannot be captured as a CUDA graph (operation not permitted when stream is "
        "capturing): its steps run eagerly"
    ]


class Twice(nuat.Standard):
    """Declares a period, but cannot be captured."""

    def step(self, model, x, y, ctx):
        yield nuat.ce(model(x), y)
        yield nuat.ce(model(x), y)


class Remembers(nuat.Standard):
    """Declares a period, but cannot be captured."""

    def step(self, model, x, y, ctx):
        ctx.memory["seen"] = 1
        yield nuat.ce(model(x), y)


@pytest.mark.parametrize("method", [Twice(), Remembers()])
def test_a_wrongly_declared_period_is_detected(method):
    def capture(work):
        work()
        return work

    messages = []
    train(replace(ROWS["normal"], method=method), CudaGraphs(method, messages.append, capture))
    assert len(messages) == 1 and "more than once, or uses its memory" in messages[0]


def test_graphs_need_a_gpu(tmp_path):
    with pytest.raises(
        nuat.InputError, match="CUDA graphs need a cuda device, but the device is cpu"
    ):
        nuat.fit("nuat", data="digits", out=tmp_path / "run", device="cpu", cuda_graphs=True)
    assert not (tmp_path / "run").exists()
