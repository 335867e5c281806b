"""From training to the report on a pretended GPU: no operation mixes devices."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import nuat
from nuat.checkpoints import load_model
from nuat.data import InMemoryDataset, Splits
from nuat.report import write_page
from nuat.training.cuda_graphs import CudaGraphs
from tests.pretend_cuda import Counts, pretended_cuda, record_graph


def images(count: int) -> InMemoryDataset:
    x = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
    return InMemoryDataset(x, torch.arange(count) % 10)


@pytest.mark.parametrize("name", ["nuat-wa", "awp", "atf"])
def test_no_operation_mixes_devices(name: str, tmp_path: Path, monkeypatch) -> None:
    recorded: list[object] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        recorded.append(work)
        return record_graph(work)

    monkeypatch.setattr("nuat.training.trainer.CudaGraphs", partial(CudaGraphs, capture=record))
    data = Splits(images(28), images(20), images(20), tuple("abcdefghij"))
    recipe = replace(
        nuat.get_recipe(name, "cifar10"),
        model="small-cnn(width=2)",
        epochs=4,
        batch_size=8,
        validation_attack="pgd-1",
    )
    with pretended_cuda(), Counts() as counts:
        run = nuat.fit(recipe, data=data, out=tmp_path / "run", device="cuda", max_time=0)
        assert not run.finished
        run = nuat.fit(recipe, data=data, out=tmp_path / "run", device="cuda")
        assert run.finished and recorded
        loaded = load_model(run.path, device="cuda")
        assert loaded.ball is not None
        attacks = ["pgd-2", "gama-2", "apgd-ce-2", "square-2"] if name == "nuat-wa" else ["pgd-2"]
        result = nuat.evaluate(loaded.model, data.test, loaded.ball, attacks, cuda_graphs=False)
        run.save_scores("test", result.to_dict())
        models = {run.path: loaded.model}
        write_page([run], tmp_path / "page.html", models=models, images=data.test)
    assert not counts.mixed
