"""A recorded step equals the step in Python.

Without a GPU, `capture` returns a function that runs the step again. benchmarks/gpu checks real
CUDA graphs.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nuat
from nuat.data import InMemoryDataset
from nuat.models import build_model
from nuat.recipes import Recipe, list_recipes
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.sgd import CapturableSGD
from nuat.training.train_step import TrainStep

ROWS = {row.name: row for row in list_recipes() if row.data == "cifar10"}
RECORDED = sorted(name for name in ROWS if not name.removesuffix("-wrn").endswith("-h"))
IMAGES = InMemoryDataset(torch.randint(256, (28, 3, 8, 8)).byte(), torch.arange(28) % 10)
EPOCHS = (0, 1, 2, 3, 40, 41, 42, 43)


class Training:
    """Epochs of 4 batches, of which the last is smaller; `outcome` collects all losses and logs."""

    def __init__(self, row: Recipe, epochs: Sequence[int] = EPOCHS, graphs: bool = False) -> None:
        torch.manual_seed(0)
        self.row = replace(row, batch_size=8, model="small-cnn(width=4)")
        self.messages: list[str] = []
        self.train_step = TrainStep(
            self.row,
            build_model(self.row.model, 10, 3),
            batches=4,
            seed=1,
            make_batch=partial(IMAGES.make_batch, augment=self.row.augment),
            cuda_graphs=CudaGraphs(self.messages.append, self.capture) if graphs else None,
        )
        # as on a GPU
        self.train_step.optimizer = CapturableSGD(
            self.train_step.model.parameters(), lr=0.0, weight_decay=row.weight_decay
        )
        self.epochs, self.captures, self.replays = epochs, 0, 0

    def outcome(self) -> list[Any]:
        """Train; return all losses, logs, weights and averages."""
        outputs: list[Any] = []
        step = self.train_step
        for epoch in self.epochs:
            inputs = IMAGES.shuffled_inputs(8, epoch, self.row.augment)
            for batch, rows in enumerate(inputs):
                ctx = step.prepare(epoch, batch)
                outputs += [*step.step(rows, ctx), *ctx.logs.values()]
        models = (step.model, step.eval_model)
        return [*(value for model in models for value in model.state_dict().values()), *outputs]

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Stand in for `capture_cuda_graph`: what `work` did to tensors is undone."""
        tensors = [*self._tensors()]
        before = [tensor.detach().clone() for tensor in tensors]
        random_state = torch.get_rng_state()
        work()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.data.copy_(value)
        torch.set_rng_state(random_state)
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            work()

        return replay

    def _tensors(self) -> Iterator[Tensor]:
        step = self.train_step
        yield from (*step.model.parameters(), *step.model.buffers())
        for state in step.optimizer.state.values():
            yield from state.values()
        for ema in step.emas._by_decay.values():
            yield from (*ema.model.parameters(), *ema.model.buffers())
        yield from (value for value in step.memory.values() if isinstance(value, Tensor))


def equal(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_step_equals_the_step(name: str) -> None:
    recorded = Training(ROWS[name], graphs=True)
    outcome = recorded.outcome()
    assert not recorded.messages
    assert recorded.replays >= 8
    assert equal(outcome, Training(ROWS[name]).outcome())


def test_a_schedule_records_nothing_anew() -> None:
    training = Training(ROWS["nuat"], epochs=range(1, 12), graphs=True)
    training.outcome()
    # a batch with the norm in its attack and one without; the smaller last batch has it
    assert training.captures == 3
    assert training.replays == 4 * 11 - 2 * 3


def test_loaded_weights_end_the_recorded_steps() -> None:
    training = Training(ROWS["nuat-wa"], graphs=True)
    training.outcome()
    step = training.train_step
    assert step.cuda_graphs is not None and step.cuda_graphs.steps
    step.load_state_dict(copy.deepcopy(step.state_dict()))
    assert not step.cuda_graphs.steps


def test_a_method_that_cannot_be_recorded_runs_eagerly_with_a_message() -> None:
    training = Training(ROWS["nuat-h"], graphs=True)
    assert equal(training.outcome(), Training(ROWS["nuat-h"]).outcome())
    assert training.messages == [
        "NuATH cannot be recorded as a CUDA graph (NuATH defines no graph_key of its own): its "
        "steps run eagerly"
    ]


class Halved(nuat.AT):
    """Overrides a method that the inherited step calls, and inherits the key."""

    def losses(self, *inputs: Any) -> Iterator[Tensor]:
        yield from (loss / 2 for loss in super().losses(*inputs))


class Renamed(nuat.NuAT):
    """Overrides settings alone, one of which is a function."""

    distance = staticmethod(nuat.nuclear)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()


class Unrepeatable(nuat.AT):
    def graph_key(self, ctx: nuat.StepContext) -> None:
        return None


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Halved(), "Halved defines no graph_key of its own"),
        (nuat.AWP(base=Halved()), "Halved defines no graph_key of its own"),
        (Unrepeatable(), "the graph_key of Unrepeatable is None"),
        (nuat.AWP(base=Unrepeatable()), "the graph_key of Unrepeatable is None"),
    ],
)
def test_a_method_without_a_key_of_its_own_runs_eagerly(method: nuat.Method, reason: str) -> None:
    row = replace(ROWS["normal"], method=method)
    training = Training(row, epochs=(0, 1), graphs=True)
    assert equal(training.outcome(), Training(row, epochs=(0, 1)).outcome())
    assert training.captures == 0
    assert len(training.messages) == 1 and f"({reason})" in training.messages[0]


def test_a_subclass_with_other_settings_is_recorded() -> None:
    training = Training(replace(ROWS["nuat"], method=Renamed()), epochs=(0, 1), graphs=True)
    training.outcome()
    assert training.captures and not training.messages


def test_a_failed_capture_changes_nothing_and_prints_one_message() -> None:
    def fail(work: Callable[[], None]) -> Callable[[], None]:
        torch.rand(3)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    training = Training(ROWS["nuat-wa"], graphs=True)
    training.train_step.cuda_graphs = CudaGraphs(training.messages.append, fail)
    assert equal(training.outcome(), Training(ROWS["nuat-wa"]).outcome())
    assert training.messages == [
        "NuAT cannot be recorded as a CUDA graph (operation not permitted when stream is "
        "capturing): its steps run eagerly"
    ]


class Remembers(nuat.Standard):
    """Has a key, but replaces what it keeps."""

    def graph_key(self, ctx: nuat.StepContext) -> tuple[()]:
        return ()

    def step(
        self, model: nn.Module, x: Tensor, y: Tensor, ctx: nuat.StepContext
    ) -> Iterator[Tensor]:
        ctx.memory["seen"] = ctx.memory.get("seen", 0) + 1
        yield nuat.ce(model(x), y)


def test_a_wrong_key_is_detected() -> None:
    training = Training(replace(ROWS["normal"], method=Remembers()), graphs=True)
    training.outcome()
    assert len(training.messages) == 1 and "ctx.memory" in training.messages[0]


def test_graphs_need_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(
        nuat.InputError, match="CUDA graphs need a cuda device, but the device is cpu"
    ):
        nuat.fit("nuat", data="digits", out=tmp_path / "run", device="cpu", cuda_graphs=True)
    assert not (tmp_path / "run").exists()
