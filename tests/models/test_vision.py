"""Models of timm (the vision extra), and the error if torchvision cannot be imported."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

import nuat
from nuat.checkpoints import load_initial_weights
from nuat.models import build_model, startup_notes, timm_nets

INSTALLED = all(map(importlib.util.find_spec, ("timm", "torchvision")))
needs_vision = pytest.mark.skipif(not INSTALLED, reason="the vision extra is not installed")
NET = "timm:resnet18"


@pytest.fixture(autouse=True)
def forget():
    timm_nets._import_once.cache_clear()
    yield
    timm_nets._import_once.cache_clear()


@pytest.fixture(scope="module")
def operators():
    """Declare the operators that torchvision lacks with another build of torch."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library


@pytest.fixture
def timm(operators):
    return timm_nets.import_timm()


def random_splits(classes=10, side=32, channels=3, count=12):
    images = nuat.InMemoryDataset(
        torch.rand(count, channels, side, side), torch.arange(count) % classes
    )
    return nuat.Splits(images, images, images, tuple(map(str, range(classes))), "noise")


# without an importable timm


def fake(monkeypatch, tmp_path, text):
    for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            [
                f"torchvision cannot be imported with torch {torch.__version__}",
                "operator torchvision::nms does not exist",
                "Install both from one index",
                "pip install --force-reinstall torch torchvision --index-url",
            ],
        ),
        ("import torchvisionn", ["torchvisionn is not installed", "pip install 'nuat[vision]'"]),
    ],
)
def test_failed_import_is_explained_in_one_line(monkeypatch, tmp_path, text, words):
    fake(monkeypatch, tmp_path, text)
    for _ in range(2):  # the second attempt says the same
        with pytest.raises(nuat.InputError) as error:
            build_model(NET, 10, 3)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_core_imports_no_extra():
    code = "import sys, nuat, nuat.cli; print({'timm', 'torchvision', 'onnx'} & set(sys.modules))"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# with timm installed


@needs_vision
def test_timm_model_is_normalized_with_its_own_statistics(timm):
    model = build_model(NET, 10, 3).eval()
    x = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(timm.create_model("resnet18").pretrained_cfg[k]) for k in ("mean", "std")
    )
    with torch.no_grad():
        by_hand = model.network((x - mean[:, None, None]) / std[:, None, None])
        assert torch.allclose(model(x), by_hand, atol=1e-5)
    assert sum(p.numel() for p in model.parameters()) == 11_181_642
    assert startup_notes(model) == [
        "timm:resnet18: the first layer normalizes the images, "
        "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    ]


@needs_vision
def test_other_normalizations(timm):
    assert not hasattr(build_model(f"{NET}(normalize=None)", 10, 3), "normalize")
    given = build_model(f"{NET}(normalize=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))", 10, 3)
    assert given.normalize.mean.flatten().tolist() == [0.5] * 3
    grey = build_model(NET, 10, 1)
    assert grey.normalize.mean.item() == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    with pytest.raises(nuat.InputError, match="the images have 4: set normalize="):
        build_model(NET, 10, 4)


@needs_vision
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timm:resnet81", "timm has no model 'resnet81'; did you mean resnet"),
        ("timm:resnet18(depth=3)", "does not take these settings"),
        ("timm:resnet18(pretrained=True)", "are loaded with --init"),
        ("timm:resnet18(checkpoint_path='x.pth')", "are loaded with --init"),
        ("timm:hf-hub:someone/else", "timm has no model 'hf-hub:someone/else'"),
    ],
)
def test_unknown_timm_model_or_setting_is_rejected(timm, text, words):
    with pytest.raises(nuat.InputError) as error:
        build_model(text, 10, 3)
    assert words in str(error.value) and "\n" not in str(error.value)


@needs_vision
def test_wrong_image_size_is_one_line(timm, tmp_path):
    row = nuat.get_recipe("normal", "cifar10").with_epochs(1)
    for text, refused in (("", True), ("(img_size=32, patch_size=8)", False)):
        model = build_model(f"timm:vit_tiny_patch16_224{text}", 10, 3)
        if refused:
            with pytest.raises(nuat.InputError, match=r"does not take images \[2, 3, 32, 32\]"):
                nuat.fit(row, model=model, data=random_splits(), out=tmp_path / "run", device="cpu")
        else:
            assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert not (tmp_path / "run").exists()


@needs_vision
def test_three_steps_of_training(timm, tmp_path, capsys):
    row = nuat.get_recipe("nuat", "cifar10").with_epochs(1).with_override("batch_size", "4")
    before = build_model(NET, 10, 3)
    run = nuat.fit(row, model=NET, data=random_splits(), out=tmp_path / "run", device="cpu")
    said = capsys.readouterr().out
    assert run.finished and run.config["model"] == NET and torch.tensor(run.metrics[0]["loss"]) > 0
    assert "the first layer normalizes the images, mean (0.485" in said
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["model"]["network.bn1.num_batches_tracked"] >= 3
    known = nuat.load_model(run.path)
    assert known.model_name == NET and known.model.state_dict().keys() == before.state_dict().keys()
    assert torch.equal(known.model.network.fc.weight, run.weights()["network.fc.weight"])


@needs_vision
@pytest.mark.parametrize("init", ["pretrained", "timm:resnet18.a1_in1k"])
def test_pretrained_weights_with_new_head(timm, monkeypatch, init):
    torch.manual_seed(5)
    there, asked = timm.create_model("resnet18"), []
    create = timm.create_model

    def offline(name, pretrained=False, **settings):
        asked.append((name, pretrained))
        return there if pretrained else create(name, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    model = build_model(NET, 10, 3)
    start = load_initial_weights(init, model, 10, 3)
    assert asked[-1] == (init.removeprefix("timm:") if init != "pretrained" else "resnet18", True)
    assert start.new_keys == ("network.fc.weight", "network.fc.bias")
    assert (start.source_classes, start.classes) == (1000, 10)
    start.apply(model)
    assert torch.equal(model.network.layer4[1].conv2.weight, there.layer4[1].conv2.weight)


@needs_vision
def test_failed_download_is_one_line(timm, monkeypatch):
    def offline(name, **settings):
        if settings.pop("pretrained", False):
            raise ConnectionError("no route\nto anywhere")
        return nn.Linear(1, 1)

    model = build_model(NET, 10, 3)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(nuat.InputError, match=r"cannot get the weights of resnet18: no route\. W"):
        load_initial_weights("pretrained", model, 10, 3)
    with pytest.raises(nuat.InputError, match=r"timm:resnet34 is not timm:resnet18: use --model"):
        load_initial_weights("timm:resnet34", model, 10, 3)


@needs_vision
def test_timm_state_dict_fits_normalized_model(timm, tmp_path):
    there = timm.create_model("resnet18")
    torch.save(there.state_dict(), tmp_path / "timm.pt")
    start = load_initial_weights(tmp_path / "timm.pt", build_model(NET, 10, 3), 10, 3)
    assert start.new_keys == ("network.fc.weight", "network.fc.bias")
