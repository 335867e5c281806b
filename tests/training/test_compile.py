"""A compiled model trains as one that is not, up to rounding."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import nuat
from nuat.checkpoints.weights_io import read_weights
from nuat.data import InMemoryDataset, Splits


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The models that are compiled; "aot_eager" compiles like "inductor", but to no kernels."""
    models: list[torch.nn.Module] = []
    compiler = torch.compile

    def compile(model: torch.nn.Module, **options: Any) -> Any:
        models.append(model)
        return partial(compiler, backend="aot_eager")(model, **options)

    monkeypatch.setattr(torch, "compile", compile)
    return models


def images(count: int) -> InMemoryDataset:
    torch.manual_seed(count)
    x = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
    return InMemoryDataset(x, torch.arange(count) % 10)


@pytest.mark.parametrize("name", ["nuat-wa", "fbf", "trades"])
def test_a_compiled_model_trains_as_one_that_is_not(
    name: str, compilations: list[torch.nn.Module], tmp_path: Path
) -> None:
    data = Splits(images(28), images(20), images(10), tuple("abcdefghij"))
    recipe = replace(
        nuat.get_recipe(name, "cifar10"),
        model="small-cnn(width=2)",
        epochs=2,
        batch_size=8,
        lr=nuat.Constant(0.01),
        validation_attack="pgd-1",
    )
    weights = []
    for compile in (False, True):
        out = tmp_path / str(compile)
        nuat.fit(recipe, data=data, out=out, device="cpu", compile=compile)
        weights.append(read_weights(out / "last.safetensors")[0])
    assert len(compilations) == 1
    for key, weight in weights[0].items():
        # BatchNorm's statistics too, which NuAT and TRADES update twice for the clean batch
        torch.testing.assert_close(weights[1][key], weight, rtol=1e-4, atol=1e-5)
