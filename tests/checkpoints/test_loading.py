"""Loading models, checking that weights belong to them, and fine-tuning."""

import dataclasses
import importlib
import json
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nuat
from nuat import cli
from nuat.checkpoints import load_initial_weights, probe_metadata, read_metadata
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights, write_weights
from nuat.models import architecture, build_model, model_name

SMALL = "resnet18(width=2)"
NUAT = "resnet18-nuat(width=2)"


def splits(classes=3, channels=1, count=24, side=8):
    generator = torch.Generator().manual_seed(classes)
    x = torch.rand(count, channels, side, side, generator=generator)
    images = nuat.InMemoryDataset(x, torch.arange(count) % classes)
    return nuat.Splits(images, images, images, tuple("abcdefghij"[:classes]), "noise")


def recipe(epochs=1, model="small-cnn(width=4)"):
    row = nuat.get_recipe("normal", "digits").with_epochs(epochs)
    return row.with_override("model", model).with_override("batch_size", "8")


def write_model(path, text, classes=10, channels=3, **changed):
    """Write a weights file with metadata, of a model with perturbed weights; return the model."""
    model = build_model(text, classes, channels).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    metadata = {"model": text, "classes": json.dumps([str(i) for i in range(classes)])}
    metadata |= probe_metadata(model, torch.rand(1, channels, 8, 8)) | changed
    write_weights(path, model.state_dict(), metadata)
    return model


@pytest.fixture
def call(monkeypatch, capsys):
    """Return `call("train ...")`, which runs nuat without any import path trusted so far."""

    def run(line):
        sys.modules.pop("birds", None)
        architecture.trusted_models.clear()
        monkeypatch.setattr(sys, "argv", ["nuat", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return SimpleNamespace(status=int(end.value.code or 0), **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Write a Python module of the user into the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes=3, channels=1, act='relu', width=4):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(channels, width, 3)\n"
        "        self.head = nn.Linear(width, classes)\n"
        "        self.act = getattr(torch, act)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.act(self.conv(x)).mean((2, 3)))\n"
        "def make(classes, act='relu'):\n    return Net(classes, act=act)\n"
        "def ready():\n    torch.manual_seed(1)\n    return Net()\n"
        "def anything(**settings):\n    return Net(**settings)\n"
        "def broken(classes):\n    return 'a network'\n"
        "instance = Net()\n"
        "number = 3\n"
    )
    (tmp_path / "typo.py").write_text("import numpyy\n")
    importlib.invalidate_caches()
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("birds")
    sys.modules.pop("birds", None)


# compatibility of weights and model


def test_architecture_of_another_name_is_rejected(tmp_path):
    model = write_model(tmp_path / "a.safetensors", SMALL)
    assert build_model(NUAT, 10, 3).load_state_dict(model.state_dict()), "they would load"
    with pytest.raises(nuat.InputError, match=r"weights of resnet18\(width=2\), not of resnet18-n"):
        nuat.load_model(tmp_path / "a.safetensors", NUAT)
    with pytest.raises(nuat.InputError, match=r"weights of resnet18\(width=2\), not of resnet18-n"):
        load_initial_weights(tmp_path / "a.safetensors", build_model(NUAT, 10, 3), 10, 3)


@pytest.mark.parametrize(
    "same",
    [None, SMALL, "resnet18(width=2, extra_relu=False)", "resnet18(width=2, normalize=None)"],
)
def test_equivalent_model_name_is_accepted(tmp_path, same):
    model = write_model(tmp_path / "a.safetensors", SMALL)
    assert torch.equal(
        nuat.load_model(tmp_path / "a.safetensors", same).model.conv1.weight, model.conv1.weight
    )


def test_different_probe_logits_are_rejected(tmp_path):
    model = write_model(tmp_path / "a.safetensors", SMALL)
    weights, metadata = read_weights(tmp_path / "a.safetensors")
    write_weights(tmp_path / "b.safetensors", weights, metadata | {"model": NUAT})
    with pytest.raises(nuat.InputError, match="give different logits"):
        nuat.load_model(tmp_path / "b.safetensors")
    del metadata["probe_logits"]
    write_weights(tmp_path / "c.safetensors", weights, metadata | {"model": NUAT})
    x = torch.rand(1, 3, 8, 8)
    assert not torch.allclose(
        nuat.load_model(tmp_path / "c.safetensors").model(x), model(x), atol=1e-3
    )


def test_normalization_is_part_of_the_architecture(tmp_path):
    write_model(tmp_path / "a.safetensors", "resnet18(width=2, normalize=cifar10)")
    for other in (SMALL, "resnet18(width=2, normalize=imagenet)"):
        with pytest.raises(nuat.InputError, match="holds weights of"):
            nuat.load_model(tmp_path / "a.safetensors", other)
    weights, _ = read_weights(tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "foreign.pt")
    with pytest.raises(nuat.InputError, match=r"normalize.mean .* another normalization"):
        nuat.load_model(tmp_path / "foreign.pt", "resnet18(width=2, normalize=imagenet)")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("text", [SMALL, "resnet18(width=2, normalize=cifar10)"])
def test_keys_of_foreign_weights_are_remapped(tmp_path, prefix, text):
    inner = build_model(SMALL, 10, 3)
    state = {prefix + key: value for key, value in inner.state_dict().items()}
    torch.save(state, tmp_path / "foreign.pt")
    loaded = nuat.load_model(tmp_path / "foreign.pt", text)
    found = getattr(loaded.model, "network", loaded.model)
    assert torch.equal(found.layer4[1].conv2.weight, inner.layer4[1].conv2.weight)
    assert loaded.metadata == {"model": text, "channels": "3"}


def test_run_stores_image_size_and_probe_logits(tmp_path):
    run = nuat.fit(recipe(), data=splits(), out=tmp_path / "run")
    metadata = read_metadata(run.path)
    assert metadata["model"] == run.config["model"] == "small-cnn(width=4)"
    assert json.loads(metadata["image_size"]) == [8, 8]
    assert len(json.loads(metadata["probe_logits"])) == 3


# models of the user


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("birds:make", 5),
        ("birds:make(act='tanh')", 5),
        ("birds:Net(width=6)", 5),
        ("birds:anything(width=6)", 5),
        ("birds:ready", 3),
        ("birds:instance", 3),
        ("birds:make(normalize=mnist)", 5),
    ],
)
def test_build_model_from_import_path(user_module, text, classes):
    model = build_model(text, 5, 1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, classes)
    assert model_name(model) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bird:make", "there is no Python module 'bird'"),
        ("birds:mak", "did you mean 'make'?"),
        ("birds.deep:make", "there is no Python module 'birds.deep'"),
        ("birds:broken", "returns a str, not a torch.nn.Module"),
        ("birds:number", "is a int, not a model or a function"),
        ("birds:make(depth=3)", "depth"),
        (
            "birds:make(normalize=cifar10)",
            "3 means and 3 standard deviations, but the images have 1 channel",
        ),
    ],
)
def test_error_of_user_model_names_the_cause(user_module, text, words):
    with pytest.raises(nuat.InputError) as error:
        build_model(text, 5, 1)
    assert words in str(error.value) and repr(text) in str(error.value)


def test_import_error_inside_user_module_is_raised_unchanged(user_module):
    with pytest.raises(ModuleNotFoundError, match="numpyy"):
        build_model("typo:make", 5, 1)


def test_load_model_from_import_path(user_module):
    loaded = nuat.load_model("birds:ready")
    assert torch.equal(loaded.model.head.weight, user_module.ready().head.weight)
    assert not loaded.model.training and loaded.run is None
    with pytest.raises(nuat.InputError, match="is a factory, not a weights file"):
        nuat.load_model("birds:ready", "resnet18")


def test_run_of_importable_class_reopens(user_module, tmp_path):
    model = user_module.Net(classes=3, channels=1)
    run = nuat.fit(recipe(), model=model, data=splits(), out="run")
    assert run.config["model"] == "birds:Net"
    assert torch.equal(nuat.load_model("run").model.head.weight, model.head.weight)
    with pytest.raises(nuat.InputError, match="not of birds2:other"):
        sys.modules["birds2"] = type(sys)("birds2")
        sys.modules["birds2"].other = lambda: build_model("small-cnn(width=4)", 3, 1)
        nuat.load_model("run", "birds2:other")
    assert torch.equal(nuat.load_model("run", "birds:make").model.head.weight, model.head.weight)


def test_run_of_class_with_settings_needs_a_factory(user_module):
    model = user_module.Net(act="tanh")
    nuat.fit(recipe(), model=model, data=splits(), out="run")
    with pytest.raises(nuat.InputError, match="give different logits"):
        nuat.load_model("run")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(nuat.load_model("run", "birds:make(act='tanh')").model(x), model.eval()(x))


def test_run_of_local_class_warns_at_start(tmp_path, capsys):
    class Local(nn.Sequential):
        pass

    model = Local(nn.Flatten(), nn.Linear(64, 3))
    nuat.fit(recipe(), model=model, data=splits(), out=tmp_path / "run")
    assert "Local cannot be imported, so the run can be reopened" in capsys.readouterr().out
    with pytest.raises(
        nuat.InputError, match=r"cannot be built from its name .* --model module:fa"
    ):
        nuat.load_model(tmp_path / "run")


def test_built_model_is_recorded_by_its_name(tmp_path):
    model = build_model(NUAT, 3, 1)
    assert (
        nuat.fit(recipe(), model=model, data=splits(side=16), out=tmp_path / "run").config["model"]
        == NUAT
    )
    assert nuat.load_model(tmp_path / "run").model_name == NUAT


@pytest.mark.parametrize("name", ["subprocess:getoutput(cmd='touch mark')", "antigravity:Net"])
def test_metadata_cannot_execute_code(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a.safetensors", SMALL)
    weights, metadata = read_weights("a.safetensors")
    write_weights(tmp_path / "b.safetensors", weights, metadata | {"model": name})
    with pytest.raises(nuat.InputError, match=r"loading it runs that code. If you trust it"):
        nuat.load_model("b.safetensors")
    assert not (tmp_path / "mark").exists() and "antigravity" not in sys.modules


def test_import_path_on_the_command_line(user_module, call):
    assert call("train normal --model birds:make --data digits --epochs 1 --out run").status == 0
    refused = call("evaluate run --attack fgsm --samples 10")
    assert refused.status == 2 and refused.err.count("\n") == 1
    assert "add --model 'birds:make'" in refused.err
    done = call("evaluate run --model birds:make --attack fgsm --samples 10")
    assert (done.status, done.err) == (0, "")
    ready = call("evaluate birds:make --data digits --eps 0.1 --attack fgsm --samples 10")
    assert (ready.status, ready.err) == (0, "")


# fine-tuning


def test_init_keeps_new_head_for_other_classes(tmp_path, capsys):
    nuat.fit(recipe(), data=splits(5), out=tmp_path / "five")
    model = build_model("small-cnn(width=4)", 3, 1)
    start = load_initial_weights(tmp_path / "five", model, 3, 1)
    assert start.new_keys == ("head.weight", "head.bias")
    assert (start.source_classes, start.classes) == (5, 3)
    drawn = model.head.weight.clone()
    start.apply(model)
    there = read_weights(tmp_path / "five" / "model.safetensors")[0]
    assert torch.equal(model.head.weight, drawn)
    assert all(torch.equal(v, there[k]) for k, v in model.state_dict().items() if k[:4] != "head")
    capsys.readouterr()
    run = nuat.fit(recipe(), data=splits(3), out=tmp_path / "three", init=tmp_path / "five")
    output = capsys.readouterr().out
    assert f"starting from {tmp_path / 'five'}: 18 of 20 tensors" in output
    assert "new head for 3 classes instead of 5: head.weight, head.bias" in output
    assert run.config["init"] == start.fingerprint
    assert run.config["init_from"] == str(tmp_path / "five")


def test_init_loads_head_for_equal_number_of_classes(tmp_path, capsys):
    nuat.fit(recipe(), data=splits(3), out=tmp_path / "one")
    weights = read_weights(tmp_path / "one" / "model.safetensors")[0]
    torch.save(weights, tmp_path / "weights.pt")
    model = build_model("small-cnn(width=4)", 3, 1)
    for init in (tmp_path / "one", tmp_path / "weights.pt"):
        start = load_initial_weights(init, model, 3, 1)
        assert not start.new_keys and "all 20 tensors, including the head" in str(start)


def test_init_changes_the_final_weights(tmp_path):
    nuat.fit(recipe(), data=splits(3), out=tmp_path / "one", seed=1)
    plain = nuat.fit(recipe(), data=splits(3), out=tmp_path / "plain")
    tuned = nuat.fit(recipe(), data=splits(3), out=tmp_path / "tuned", init=tmp_path / "one")
    assert not torch.equal(plain.weights()["head.weight"], tuned.weights()["head.weight"])


@pytest.mark.parametrize(
    ("classes", "kept"), [("abc", False), ("cab", True), ("xyz", True), ("abcd", False)]
)
def test_a_head_that_is_kept_for_other_classes_is_noted(tmp_path, capsys, classes, kept):
    one, other = (
        dataclasses.replace(splits(len(names)), classes=tuple(names)) for names in ("abc", classes)
    )
    nuat.fit(recipe(), data=one, out=tmp_path / "one")
    capsys.readouterr()
    nuat.fit(recipe(), data=other, out=tmp_path / "two", init=tmp_path / "one")
    note = f"is for the classes a, b, c; it is kept, and trained for {', '.join(classes[:3])}"
    assert (note in capsys.readouterr().out) == kept


def test_resume_without_init_file_is_bit_equal(tmp_path, monkeypatch, capsys):
    nuat.fit(recipe(), data=splits(5), out=tmp_path / "five")
    start = tmp_path / "five.safetensors"
    start.write_bytes((tmp_path / "five" / "model.safetensors").read_bytes())
    settings = {"recipe": recipe(2), "data": splits(3), "init": start}
    uninterrupted = nuat.fit(**settings, out=tmp_path / "uninterrupted")
    nuat.fit(**settings, out=tmp_path / "cut", max_time=0)
    start.unlink()
    capsys.readouterr()
    cut = nuat.fit(**settings, out=tmp_path / "cut")
    assert "starting from" not in capsys.readouterr().out
    assert cut.finished and cut.config == uninterrupted.config
    for name, value in uninterrupted.weights().items():
        assert torch.equal(cut.weights()[name], value)
    with pytest.raises(nuat.InputError, match="there is no weights file"):
        nuat.fit(**settings, out=tmp_path / "new")


def test_other_initial_weights_are_another_run(tmp_path):
    write_model(tmp_path / "a.safetensors", "small-cnn(width=4)", 3, 1)
    settings = {"data": splits(3), "out": tmp_path / "run"}
    nuat.fit(recipe(), **settings, init=tmp_path / "a.safetensors")
    write_model(tmp_path / "a.safetensors", "small-cnn(width=4)", 3, 1)
    for init in (tmp_path / "a.safetensors", None):
        with pytest.raises(nuat.InputError, match=r"holds another run; it differs in init"):
            nuat.fit(recipe(), **settings, init=init)
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    other = {"data": splits(3), "out": tmp_path / "other"}
    nuat.fit(recipe(), **other, init=tmp_path / "a.safetensors")
    nuat.fit(recipe(), **other, init=tmp_path / "b.safetensors")  # the same weights elsewhere


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("grey.safetensors", "is a model for images of 1 channel (grayscale), but the data have 3"),
        ("wide.safetensors", "holds weights of small-cnn(width=8), not of small-cnn(width=4)"),
        ("wide.pt", "does not fit small-cnn(width=4)"),
        ("nan.pt", "features.0.weight is NaN or infinite"),
        ("missing.pt", "there is no weights file missing.pt"),
        ("text.pt", "cannot be read as weights"),
        ("pretrained", "is for timm's models"),
        ("timm:resnet18", "is for timm's models"),
        ("empty", "is not a run folder"),
    ],
)
def test_invalid_init_is_one_line_and_writes_nothing(tmp_path, monkeypatch, init, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("dear diary\n")
    write_model(tmp_path / "grey.safetensors", "small-cnn(width=4)", 3, 1)
    wide = write_model(tmp_path / "wide.safetensors", "small-cnn(width=8)", 3, 3)
    torch.save(wide.state_dict(), "wide.pt")
    broken = build_model("small-cnn(width=4)", 3, 3).state_dict()
    broken["features.0.weight"][0] = torch.nan
    torch.save(broken, "nan.pt")
    model = build_model("small-cnn(width=4)", 3, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(nuat.InputError) as error:
        nuat.fit(recipe(), model=model, data=splits(3, 3), out="run", init=init)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_init_on_the_command_line(tmp_path, call):
    write_model(tmp_path / "a.safetensors", "small-cnn(width=4)", 7, 1)
    line = f"train normal --model 'small-cnn(width=4)' --epochs 1 --out {tmp_path / 'run'}"
    done = call(f"{line} --init {tmp_path / 'a.safetensors'}")
    assert done.status == 0 and "10 classes instead of 7" in done.out
    assert Run.open(tmp_path / "run").config["init"]
