"""TF32: a choice of the recipe, announced on a GPU, and never used in validation."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import nuat
from nuat.data import Splits
from nuat.profiling.candidate import Candidate
from nuat.runtime.precision import convolution_precision, has_tf32
from nuat.training.fitting import torch_settings
from nuat.training.plan import resolve
from nuat.training.trainer import Trainer

CONV, MATMUL = torch.backends.cudnn.conv, torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def _settings():
    """Restore the settings of torch."""
    before = CONV.fp32_precision, MATMUL.fp32_precision
    yield
    CONV.fp32_precision, MATMUL.fp32_precision = before


class Recorder(nn.Module):
    """A linear classifier that records torch's settings of each pass, by its mode."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.seen = {True: set(), False: set()}

    def forward(self, x):
        self.seen[self.training].add((CONV.fp32_precision, MATMUL.fp32_precision))
        return self.head(x.flatten(1))


@pytest.fixture
def data():
    digits = nuat.load_dataset("digits")
    part = digits.train.subset(torch.arange(32))
    return Splits(part, part, part, digits.classes, "part")


@pytest.mark.parametrize("global_setting", ["ieee", "tf32"])
@pytest.mark.parametrize("tf32", [True, False])
def test_training_computes_as_the_recipe_says(tf32, global_setting, data, tmp_path):
    """Whatever torch is set to, which it is afterwards too. Validation is in eval mode."""
    CONV.fp32_precision = global_setting
    recipe = replace(nuat.get_recipe("normal", "digits").with_epochs(1), tf32=tf32)
    model = Recorder()
    plan = resolve(recipe, model=model, data=data, out=tmp_path / "run")
    for passes in model.seen.values():
        passes.clear()
    with torch_settings(plan):
        Trainer(plan).run()
    assert CONV.fp32_precision == global_setting
    assert {conv for conv, _ in model.seen[True]} == {"tf32" if tf32 else "ieee"}
    assert ("ieee", "ieee") in model.seen[False]


@pytest.mark.parametrize("tf32", [True, False])
def test_nuat_bench_times_what_the_recipe_says(tf32, data):
    recipe = replace(nuat.get_recipe("normal", "digits"), tf32=tf32, batch_size=16)
    model = Recorder()
    Candidate(recipe, model, data.train).run_round()
    assert {conv for conv, _ in model.seen[True]} == {"tf32" if tf32 else "ieee"}


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((9, 0), None, True), ((8, 0), None, True), ((7, 5), None, False), ((9, 0), "6.4", False)],
)
def test_which_devices_have_tf32(capability, hip, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert has_tf32(torch.device("cuda")) == expected
    assert not has_tf32(torch.device("cpu"))


def test_a_gpu_with_tf32_is_announced(data, tmp_path, monkeypatch):
    def notes(**changes):
        recipe = replace(nuat.get_recipe("normal", "digits"), **changes)
        plan = resolve(recipe, data=data, out=tmp_path / "run", device="cpu")
        return [note for note in plan.runtime_notes if "TF32" in note]

    assert notes() == []
    monkeypatch.setattr("nuat.training.plan.has_tf32", lambda device: True)
    (note,) = notes()
    assert "--set tf32=False" in note
    assert notes(tf32=False) == [] and notes(precision="bf16") == []


def test_the_settings_come_back_after_an_error():
    for tf32 in (True, False):
        for setting in ("ieee", "tf32"):
            CONV.fp32_precision = MATMUL.fp32_precision = setting
            with pytest.raises(ZeroDivisionError), convolution_precision(tf32):
                raise ZeroDivisionError
            assert (CONV.fp32_precision, MATMUL.fp32_precision) == (setting, setting)


@pytest.mark.parametrize("tf32", [None, 1, "False"])
def test_tf32_is_true_or_false(tf32):
    with pytest.raises(nuat.InputError, match=r"tf32 is .*must be True or False"):
        replace(nuat.get_recipe("normal", "digits"), tf32=tf32)
