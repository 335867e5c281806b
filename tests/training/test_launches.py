"""What a training step launches, and when the host waits, counted on a pretended CUDA device.

The figures are those of a network of two blocks; `benchmarks/gpu` measures a real GPU.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
import torch
from torch import Tensor

from nuat.data import InMemoryDataset
from nuat.models import build_model
from nuat.recipes import Recipe, list_recipes
from nuat.training.cuda_graphs import CudaGraphs
from nuat.training.meters import AverageMeter, LossMeter
from nuat.training.train_step import TrainStep
from tests.pretend_cuda import Counts, pretended_cuda, record_graph

ROWS = {row.name: row for row in list_recipes() if row.data == "cifar10"}
NAMES = sorted(name for name in ROWS if not name.endswith("-wrn"))
BATCHES = 6
IMAGES = InMemoryDataset(
    torch.randint(256, (4 * BATCHES, 3, 8, 8)).byte(), torch.arange(4 * BATCHES) % 10
)


class Training:
    """A recipe in training on the pretended device."""

    def __init__(self, row: Recipe, graphs: bool, model: str = "small-cnn(width=4)") -> None:
        torch.manual_seed(0)
        self.images, self.augment = IMAGES.to("cuda"), row.augment
        self.train_step = TrainStep(
            replace(row, batch_size=4),
            build_model(model, 10, 3).to("cuda").train(),
            BATCHES,
            make_batch=partial(self.images.make_batch, augment=row.augment),
            cuda_graphs=CudaGraphs(pytest.fail, record_graph) if graphs else None,
        )
        self.losses, self.logs = LossMeter(), AverageMeter()
        self.batches = self._batches()

    def _batches(self) -> Iterator[tuple[int, int, tuple[Tensor, ...]]]:
        for epoch in count(40):
            for batch, inputs in enumerate(self.images.shuffled_inputs(4, epoch, self.augment)):
                yield epoch, batch, inputs

    def steps(self, number: int) -> Counts:
        """Take training steps as the trainer does."""
        with Counts() as counts:
            for _ in range(number):
                epoch, batch, inputs = next(self.batches)
                ctx = self.train_step.prepare(epoch, batch)
                for loss in self.train_step.step(inputs, ctx):
                    self.losses.update(loss)
                self.logs.update(ctx.logs)
        # the losses are read together, once in 50
        for place in [place for place in counts.waits if "training/meters.py" in place]:
            assert counts.waits.pop(place) <= 1
        return counts


@pytest.mark.parametrize("name", NAMES)
def test_an_eager_step_waits_for_nothing(name: str) -> None:
    with pretended_cuda():
        training = Training(ROWS[name], graphs=False)
        training.steps(BATCHES)
        counts = training.steps(BATCHES)
    # the trigger of NuAT-H reads the clean loss of each of its single-step batches
    assert counts.num_waits == (BATCHES if "-h" in name else 0), counts.waits
    assert not counts.mixed


@pytest.mark.parametrize("name", [name for name in NAMES if "-h" not in name])
def test_a_recorded_step_has_few_launches(name: str) -> None:
    with pretended_cuda():
        training = Training(ROWS[name], graphs=True)
        training.steps(2 * BATCHES)
        counts = training.steps(BATCHES)
    assert not counts.waits and not counts.mixed
    assert counts.launches["graph"] == BATCHES
    # the graph, the batch, the scalars (two), the outputs and the sum of the logged clean losses;
    # and once an epoch the table of the batches
    assert counts.num_launches <= 6 * BATCHES + 1


def test_a_recorded_step_trains_as_an_eager_one() -> None:
    weights = []
    with pretended_cuda():
        for graphs in (False, True):
            training = Training(ROWS["nuat2-wa"], graphs)
            training.steps(3 * BATCHES)
            models = (training.train_step.model, training.train_step.eval_model)
            weights.append([w.cpu() for model in models for w in model.state_dict().values()])
    assert all(map(torch.equal, *weights))


@pytest.mark.parametrize(("precision", "launches"), [("fp32", 954), ("bf16", 1074)])
def test_launches_of_an_eager_step(precision: str, launches: float) -> None:
    with pretended_cuda():
        row = replace(ROWS["nuat-wa"], precision=precision)
        training = Training(row, graphs=False, model="resnet18-nuat(width=2)")
        training.steps(2)
        counts = training.steps(2)
    assert counts.num_launches / 2 == launches
