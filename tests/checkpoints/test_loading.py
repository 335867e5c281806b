"""Which weights go into which network: architectures, own networks, fine-tuning."""

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


def written(path, text, classes=10, channels=3, **changed):
    """A file as nuat writes it, of a network with weights that are not those of its start."""
    f = build_model(text, classes, channels).eval()
    with torch.no_grad():
        for weight in f.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    about = {"model": text, "classes": json.dumps([str(i) for i in range(classes)])}
    about |= probe_metadata(f, torch.rand(1, channels, 8, 8)) | changed
    write_weights(path, f.state_dict(), about)
    return f


@pytest.fixture
def call(monkeypatch, capsys):
    """`call("train ...")` in a process where nothing of the user's own is known."""

    def run(line):
        sys.modules.pop("birds", None)
        architecture.trusted_import_paths.clear()
        monkeypatch.setattr(sys, "argv", ["nuat", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return SimpleNamespace(status=int(end.value.code or 0), **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
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


# the architecture is checked, not the shapes alone


def test_weights_of_another_function_are_refused_by_name(tmp_path):
    f = written(tmp_path / "a.safetensors", SMALL)
    assert build_model(NUAT, 10, 3).load_state_dict(f.state_dict()), "they would load"
    with pytest.raises(nuat.InputError, match=r"weights of resnet18\(width=2\), not of resnet18-n"):
        nuat.load_model(tmp_path / "a.safetensors", NUAT)
    with pytest.raises(nuat.InputError, match=r"weights of resnet18\(width=2\), not of resnet18-n"):
        load_initial_weights(tmp_path / "a.safetensors", build_model(NUAT, 10, 3), 10, 3)


@pytest.mark.parametrize(
    "same",
    [None, SMALL, "resnet18(width=2, extra_relu=False)", "resnet18(width=2, normalize=None)"],
)
def test_the_same_network_in_other_words_is_accepted(tmp_path, same):
    f = written(tmp_path / "a.safetensors", SMALL)
    assert torch.equal(
        nuat.load_model(tmp_path / "a.safetensors", same).model.conv1.weight, f.conv1.weight
    )


def test_a_network_that_answers_otherwise_is_refused_whatever_its_name(tmp_path):
    f = written(tmp_path / "a.safetensors", SMALL)
    weights, metadata = read_weights(tmp_path / "a.safetensors")
    write_weights(tmp_path / "b.safetensors", weights, metadata | {"model": NUAT})
    with pytest.raises(nuat.InputError, match="belong to another function: the logits"):
        nuat.load_model(tmp_path / "b.safetensors")
    del metadata["probe_logits"]
    write_weights(tmp_path / "c.safetensors", weights, metadata | {"model": NUAT})
    x = torch.rand(1, 3, 8, 8)
    assert not torch.allclose(nuat.load_model(tmp_path / "c.safetensors").model(x), f(x), atol=1e-3)


def test_normalisation_is_part_of_the_architecture(tmp_path):
    written(tmp_path / "a.safetensors", "resnet18(width=2, normalize=cifar10)")
    for other in (SMALL, "resnet18(width=2, normalize=imagenet)"):
        with pytest.raises(nuat.InputError, match="holds weights of"):
            nuat.load_model(tmp_path / "a.safetensors", other)
    weights, _ = read_weights(tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "foreign.pt")
    with pytest.raises(nuat.InputError, match=r"normalize.mean .* another normalization"):
        nuat.load_model(tmp_path / "foreign.pt", "resnet18(width=2, normalize=imagenet)")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("text", [SMALL, "resnet18(width=2, normalize=cifar10)"])
def test_foreign_weights_of_other_spellings(tmp_path, prefix, text):
    inner = build_model(SMALL, 10, 3)
    state = {prefix + key: value for key, value in inner.state_dict().items()}
    torch.save(state, tmp_path / "foreign.pt")
    known = nuat.load_model(tmp_path / "foreign.pt", text)
    found = getattr(known.model, "network", known.model)
    assert torch.equal(found.layer4[1].conv2.weight, inner.layer4[1].conv2.weight)
    assert known.metadata == {"model": text, "channels": "3"}


def test_every_run_tells_its_size_and_answer(tmp_path):
    run = nuat.fit(recipe(), data=splits(), out=tmp_path / "run")
    metadata = read_metadata(run.path)
    assert metadata["model"] == run.config["model"] == "small-cnn(width=4)"
    assert json.loads(metadata["image_size"]) == [8, 8]
    assert len(json.loads(metadata["probe_logits"])) == 3


# a network of one's own


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
def test_module_and_factory(own, text, classes):
    f = build_model(text, 5, 1)
    assert f(torch.rand(2, 1, 8, 8)).shape == (2, classes)
    assert model_name(f) == text


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
def test_what_is_wrong_with_an_own_network_is_said(own, text, words):
    with pytest.raises(nuat.InputError) as error:
        build_model(text, 5, 1)
    assert words in str(error.value) and repr(text) in str(error.value)


def test_what_is_wrong_within_an_own_module_comes_through(own):
    with pytest.raises(ModuleNotFoundError, match="numpyy"):
        build_model("typo:make", 5, 1)


def test_a_ready_network_is_evaluated_without_a_file(own):
    known = nuat.load_model("birds:ready")
    assert torch.equal(known.model.head.weight, own.ready().head.weight)
    assert not known.model.training and known.run is None
    with pytest.raises(nuat.InputError, match="takes no --model"):
        nuat.load_model("birds:ready", "resnet18")


def test_a_module_of_an_importable_class_opens_again(own, tmp_path):
    f = own.Net(classes=3, channels=1)
    run = nuat.fit(recipe(), model=f, data=splits(), out="run")
    assert run.config["model"] == "birds:Net"
    assert torch.equal(nuat.load_model("run").model.head.weight, f.head.weight)
    with pytest.raises(nuat.InputError, match="not of birds2:other"):
        sys.modules["birds2"] = type(sys)("birds2")
        sys.modules["birds2"].other = lambda: build_model("small-cnn(width=4)", 3, 1)
        nuat.load_model("run", "birds2:other")
    assert torch.equal(nuat.load_model("run", "birds:make").model.head.weight, f.head.weight)


def test_a_module_with_settings_of_its_own_opens_only_with_them(own):
    f = own.Net(act="tanh")
    nuat.fit(recipe(), model=f, data=splits(), out="run")
    with pytest.raises(nuat.InputError, match="belong to another function"):
        nuat.load_model("run")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(nuat.load_model("run", "birds:make(act='tanh')").model(x), f.eval()(x))


def test_a_module_of_a_class_that_cannot_be_imported_says_so(tmp_path, capsys):
    class Local(nn.Sequential):
        pass

    f = Local(nn.Flatten(), nn.Linear(64, 3))
    nuat.fit(recipe(), model=f, data=splits(), out=tmp_path / "run")
    assert "Local cannot be imported, so the run can be reopened" in capsys.readouterr().out
    with pytest.raises(
        nuat.InputError, match=r"cannot be built from its name .* --model module:fa"
    ):
        nuat.load_model(tmp_path / "run")


def test_a_network_that_nuat_built_is_known_by_its_name(tmp_path):
    f = build_model(NUAT, 3, 1)
    assert (
        nuat.fit(recipe(), model=f, data=splits(side=16), out=tmp_path / "run").config["model"]
        == NUAT
    )
    assert nuat.load_model(tmp_path / "run").model_name == NUAT


@pytest.mark.parametrize("name", ["subprocess:getoutput(cmd='touch mark')", "antigravity:Net"])
def test_a_file_runs_no_code_by_naming_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.safetensors", SMALL)
    weights, metadata = read_weights("a.safetensors")
    write_weights(tmp_path / "b.safetensors", weights, metadata | {"model": name})
    with pytest.raises(nuat.InputError, match=r"loading it runs that code. If you trust it"):
        nuat.load_model("b.safetensors")
    assert not (tmp_path / "mark").exists() and "antigravity" not in sys.modules


def test_from_the_command_line(own, call):
    assert call("train normal --model birds:make --data digits --epochs 1 --out run").status == 0
    refused = call("evaluate run --attack fgsm --samples 10")
    assert refused.status == 2 and refused.err.count("\n") == 1
    assert "add --model 'birds:make'" in refused.err
    done = call("evaluate run --model birds:make --attack fgsm --samples 10")
    assert (done.status, done.err) == (0, "")
    ready = call("evaluate birds:make --data digits --eps 0.1 --attack fgsm --samples 10")
    assert (ready.status, ready.err) == (0, "")


# fine-tuning


def test_a_new_head_for_other_classes_and_nothing_else(tmp_path, capsys):
    nuat.fit(recipe(), data=splits(5), out=tmp_path / "five")
    f = build_model("small-cnn(width=4)", 3, 1)
    start = load_initial_weights(tmp_path / "five", f, 3, 1)
    assert start.new_keys == ("head.weight", "head.bias")
    assert (start.source_classes, start.classes) == (5, 3)
    drawn = f.head.weight.clone()
    start.apply(f)
    there = read_weights(tmp_path / "five" / "model.safetensors")[0]
    assert torch.equal(f.head.weight, drawn)
    assert all(torch.equal(v, there[k]) for k, v in f.state_dict().items() if k[:4] != "head")
    capsys.readouterr()
    run = nuat.fit(recipe(), data=splits(3), out=tmp_path / "three", init=tmp_path / "five")
    said = capsys.readouterr().out
    assert f"starting from {tmp_path / 'five'}: 18 of 20 tensors" in said
    assert "new head for 3 classes instead of 5: head.weight, head.bias" in said
    assert run.config["init"] == start.fingerprint
    assert run.config["init_from"] == str(tmp_path / "five")


def test_the_head_is_taken_where_the_classes_are_as_many(tmp_path, capsys):
    nuat.fit(recipe(), data=splits(3), out=tmp_path / "one")
    weights = read_weights(tmp_path / "one" / "model.safetensors")[0]
    torch.save(weights, tmp_path / "weights.pt")
    f = build_model("small-cnn(width=4)", 3, 1)
    for init in (tmp_path / "one", tmp_path / "weights.pt"):
        start = load_initial_weights(init, f, 3, 1)
        assert not start.new_keys and "all 20 tensors, including the head" in str(start)


def test_fine_tuning_changes_the_weights_it_ends_in(tmp_path):
    nuat.fit(recipe(), data=splits(3), out=tmp_path / "one", seed=1)
    plain = nuat.fit(recipe(), data=splits(3), out=tmp_path / "plain")
    tuned = nuat.fit(recipe(), data=splits(3), out=tmp_path / "tuned", init=tmp_path / "one")
    assert not torch.equal(plain.weights()["head.weight"], tuned.weights()["head.weight"])


def test_it_goes_on_without_the_file_it_started_from_and_to_the_same_weights(
    tmp_path, monkeypatch, capsys
):
    nuat.fit(recipe(), data=splits(5), out=tmp_path / "five")
    start = tmp_path / "five.safetensors"
    start.write_bytes((tmp_path / "five" / "model.safetensors").read_bytes())
    asked = {"recipe": recipe(2), "data": splits(3), "init": start}
    whole = nuat.fit(**asked, out=tmp_path / "whole")
    nuat.fit(**asked, out=tmp_path / "cut", max_time=0)
    start.unlink()
    capsys.readouterr()
    cut = nuat.fit(**asked, out=tmp_path / "cut")
    assert "starting from" not in capsys.readouterr().out
    assert cut.finished and cut.config == whole.config
    for name, value in whole.weights().items():
        assert torch.equal(cut.weights()[name], value)
    with pytest.raises(nuat.InputError, match="there is no weights file"):
        nuat.fit(**asked, out=tmp_path / "new")


def test_another_start_is_another_run(tmp_path):
    written(tmp_path / "a.safetensors", "small-cnn(width=4)", 3, 1)
    asked = {"data": splits(3), "out": tmp_path / "run"}
    nuat.fit(recipe(), **asked, init=tmp_path / "a.safetensors")
    written(tmp_path / "a.safetensors", "small-cnn(width=4)", 3, 1)
    for init in (tmp_path / "a.safetensors", None):
        with pytest.raises(nuat.InputError, match=r"holds another run; it differs in init"):
            nuat.fit(recipe(), **asked, init=init)
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
def test_a_start_that_cannot_be_is_one_line_and_nothing_is_made(tmp_path, monkeypatch, init, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("dear diary\n")
    written(tmp_path / "grey.safetensors", "small-cnn(width=4)", 3, 1)
    wide = written(tmp_path / "wide.safetensors", "small-cnn(width=8)", 3, 3)
    torch.save(wide.state_dict(), "wide.pt")
    broken = build_model("small-cnn(width=4)", 3, 3).state_dict()
    broken["features.0.weight"][0] = torch.nan
    torch.save(broken, "nan.pt")
    f = build_model("small-cnn(width=4)", 3, 3)
    before = {name: value.clone() for name, value in f.state_dict().items()}
    with pytest.raises(nuat.InputError) as error:
        nuat.fit(recipe(), model=f, data=splits(3, 3), out="run", init=init)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(before[name], value) for name, value in f.state_dict().items())


def test_the_command_line_takes_a_start(tmp_path, call):
    written(tmp_path / "a.safetensors", "small-cnn(width=4)", 7, 1)
    line = f"train normal --model 'small-cnn(width=4)' --epochs 1 --out {tmp_path / 'run'}"
    done = call(f"{line} --init {tmp_path / 'a.safetensors'}")
    assert done.status == 0 and "10 classes instead of 7" in done.out
    assert Run.open(tmp_path / "run").config["init"]
