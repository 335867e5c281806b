"""Weights as people save them, and runs of networks inside torch's wrappers."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nuat
from nuat.checkpoints import load_initial_weights, read_metadata, read_weights
from nuat.checkpoints.compatibility import remap_keys
from nuat.errors import InputError
from nuat.models import build_model, model_name
from nuat.nn.ema import EMA
from nuat.nn.fingerprint import fingerprint
from nuat.nn.state_dict import innermost_model, load_plain_state_dict, plain_state_dict

SMALL = "small-cnn(width=4)"
X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def trained(seed=5):
    """A model whose weights, statistics and counters all differ from those of a fresh one."""
    torch.manual_seed(seed)
    model = build_model(SMALL, 10, 1)
    model.train()(X)
    return model.eval()


def prefixed(prefix, weights):
    return {f"{prefix}{key}": value for key, value in weights.items()}


def no_counters(weights):
    return {key: value for key, value in weights.items() if "num_batches" not in key}


SPELLINGS = {
    "plain": lambda w: w,
    "DataParallel": lambda w: prefixed("module.", w),
    "torch.compile": lambda w: prefixed("_orig_mod.", w),
    "DataParallel of torch.compile": lambda w: prefixed("module._orig_mod.", w),
    "a part in DataParallel": lambda w: {
        k.replace("features.", "features.module."): v for k, v in w.items()
    },
    "a part in torch.compile": lambda w: {
        k.replace("head.", "head._orig_mod."): v for k, v in w.items()
    },
    "FSDP": lambda w: prefixed("_fsdp_wrapped_module.", w),
    "AveragedModel": lambda w: AveragedModel(trained()).state_dict(),
    "AveragedModel of torch.compile": lambda w: (
        {"n_averaged": torch.tensor(3)} | prefixed("module._orig_mod.", w)
    ),
    "before torch 0.4.1": no_counters,
    "before torch 0.4.1, DataParallel": lambda w: prefixed("module.", no_counters(w)),
    "Lightning": lambda w: {"state_dict": prefixed("model.", w), "epoch": 3, "lr_schedulers": []},
    "Lightning, compiled": lambda w: {"state_dict": prefixed("net._orig_mod.", w)},
    "two prefixes": lambda w: prefixed("model.backbone.", w),
    "state_dict and optimizer": lambda w: {
        "state_dict": w,
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.zeros(2)}},
            "param_groups": [{"lr": 1}],
        },
        "best": 0.5,
    },
    "model": lambda w: {"model": prefixed("module.", w), "args": {}},
    "net": lambda w: {"net": w, "acc": 91.2, "epoch": 3},
    "model_state_dict": lambda w: {"epoch": 1, "model_state_dict": w},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("text", [SMALL, "small-cnn(width=4, normalize=mnist)"])
def test_foreign_weights_load(spelling, text, tmp_path):
    expected = trained()
    torch.save(SPELLINGS[spelling](expected.state_dict()), tmp_path / "w.pt")
    loaded = nuat.load_model(tmp_path / "w.pt", text, channels=1).model
    assert torch.equal(getattr(loaded, "network", loaded)(X), expected(X))
    tuned = load_initial_weights(tmp_path / "w.pt", build_model(text, 10, 1), 10, 1)
    assert torch.equal(
        tuned.weights[next(k for k in tuned.weights if "head.weight" in k)], expected.head.weight
    )


def test_prefixes_that_the_model_has_are_kept():
    """A model may have parts that are called module or model itself."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.model = nn.Linear(2, 2), nn.BatchNorm1d(2)

    own = Inner().state_dict()
    for prefix in ("", "module.", "_orig_mod.", "net."):
        assert remap_keys(prefixed(prefix, own), own).keys() == own.keys()
    only = nn.ModuleDict({"model": nn.Linear(2, 2)}).state_dict()
    assert remap_keys(only, only).keys() == only.keys()
    assert remap_keys(prefixed("model.", only), only).keys() != only.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda w: {"model": w, "ema": w}, r"2 state dicts, .* save one .* alone: 'model', 'ema'"),
        (lambda w: {"model": w, "mean": torch.zeros(1)}, None),
        (lambda w: {"state": {"model": w}}, "holds a dict, not one state dict"),
        (lambda w: {"epoch": 3}, "holds a dict, not one state dict"),
        (lambda w: [w], "holds a list"),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "the model has no extra.weight"),
        (
            lambda w: prefixed("model.", w) | {"mean": torch.zeros(1)},
            "head.* is missing|.* is missing",
        ),
        (
            lambda w: {k: v for k, v in w.items() if "running_mean" not in k},
            "running_mean is missing",
        ),
    ],
)
def test_what_is_not_one_state_dict_of_the_model_is_refused(content, words, tmp_path):
    torch.save(content(trained().state_dict()), tmp_path / "w.pt")
    if words is None:
        nuat.load_model(tmp_path / "w.pt", SMALL, channels=1)
        return
    with pytest.raises(InputError, match=words) as raised:
        nuat.load_model(tmp_path / "w.pt", SMALL, channels=1)
    assert "\n" not in str(raised.value)


# networks inside wrappers


class Partly(nn.Module):
    """Two parts, each in a wrapper."""

    def __init__(self):
        super().__init__()
        model = trained()
        self.features = nn.DataParallel(model.features)
        self.head = torch.compile(model.head, backend="eager")

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


WRAPPED = {
    "compiled": lambda: torch.compile(trained(), backend="eager"),
    "data parallel": lambda: nn.DataParallel(trained()),
    "both": lambda: nn.DataParallel(torch.compile(trained(), backend="eager")),
    "parts": Partly,
}
wrapped = pytest.mark.parametrize("wrapper", WRAPPED)


@wrapped
def test_plain_names_of_wrapped_networks(wrapper):
    plain, model = trained(), WRAPPED[wrapper]()
    assert plain_state_dict(model).keys() == plain.state_dict().keys()
    assert fingerprint(model) == fingerprint(plain)
    ema = EMA(model, 0.9)
    assert ema.state_dict()["model"].keys() == plain.state_dict().keys()
    load_plain_state_dict(model, trained(seed=6).state_dict())
    assert torch.equal(model.eval()(X), trained(seed=6)(X))
    if wrapper != "parts":
        assert type(innermost_model(model)) is type(plain) and model_name(model) == SMALL


@pytest.mark.parametrize("recipe", ["fgsm-at", "nuat-wa"])
@wrapped
def test_run_of_a_wrapped_network_opens_without_the_wrapper(wrapper, recipe, tmp_path):
    row = dataclasses.replace(nuat.get_recipe(recipe, "digits").with_epochs(1), batch_size=8)
    splits = dict.fromkeys(("train", "val", "test"), (X, torch.arange(12) % 10))
    model = WRAPPED[wrapper]()
    run = nuat.fit(row, model, splits, out=tmp_path / "run")
    for name in ("model", "last"):
        assert (
            read_weights(run.path / f"{name}.safetensors")[0].keys()
            == trained().state_dict().keys()
        )
    if wrapper == "parts":
        return
    loaded = nuat.load_model(run.path)
    assert torch.allclose(loaded.model(X), model.eval()(X), atol=1e-6)
    assert read_metadata(run.path)["model_class"] == "nuat.models.small:SmallCNN"
    nuat.export.save_state_dict(run.path, tmp_path / "w.pt")
    assert torch.load(tmp_path / "w.pt").keys() == trained().state_dict().keys()


def test_a_run_begun_uncompiled_resumes_compiled(tmp_path):
    row = dataclasses.replace(nuat.get_recipe("nuat-wa", "digits").with_epochs(2), batch_size=8)
    splits = dict.fromkeys(("train", "val", "test"), (X, torch.arange(12) % 10))
    whole, compiled = trained(), WRAPPED["compiled"]()
    nuat.fit(row, whole, splits, out=tmp_path / "whole")
    nuat.fit(row, trained(), splits, out=tmp_path / "run", max_time=0)
    nuat.fit(row, compiled, splits, out=tmp_path / "run")
    assert torch.allclose(compiled(X), whole(X), atol=1e-6)


def test_functions_that_build_another_class_are_still_refused(tmp_path, monkeypatch):
    (tmp_path / "wrapped_birds.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, act=torch.relu):\n"
        "        super().__init__()\n"
        "        self.layer, self.act = nn.Linear(64, 10), act\n"
        "    def forward(self, x):\n        return self.layer(self.act(x.flatten(1) - 0.5))\n"
        "class Other(Net):\n    pass\n"
        "def make():\n    return Net()\n"
        "def tanh():\n    return Net(torch.tanh)\n"
        "def other():\n    return Other()\n"
        "def compiled():\n    return torch.compile(Net(), backend='eager')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = dataclasses.replace(nuat.get_recipe("fgsm-at", "digits").with_epochs(1), batch_size=8)
    splits = dict.fromkeys(("train", "val", "test"), (X, torch.arange(12) % 10))
    run = nuat.fit(row, "wrapped_birds:compiled", splits, out=tmp_path / "run")
    assert run.config["model"] == "wrapped_birds:compiled"
    plain = nuat.load_model(run.path, "wrapped_birds:make").model
    assert torch.equal(plain(X), nuat.load_model(run.path, "wrapped_birds:compiled").model(X))
    with pytest.raises(InputError, match="not of wrapped_birds:other"):
        nuat.load_model(run.path, "wrapped_birds:other")
    with pytest.raises(InputError, match="give different logits"):
        nuat.load_model(run.path, "wrapped_birds:tanh")
