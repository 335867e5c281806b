"""Exporting a model: model card, folder, state dict, ONNX, the Hub."""

import importlib.util
import inspect
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nuat
from nuat import cli
from nuat.checkpoints import probe_metadata
from nuat.checkpoints.weights_io import read_weights, write_weights
from nuat.evaluation.intervals import wilson
from nuat.export import model_card, save_state_dict
from nuat.models import build_model
from nuat.nn.fingerprint import fingerprint
from nuat.runtime.checksums import with_checksum

ONNX = all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "onnxscript")))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the export extra is not installed")
HUB = importlib.util.find_spec("huggingface_hub")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run with two evaluations: of its weights, and of other weights."""
    row = (
        nuat.get_recipe("nuat", "digits")
        .with_epochs(1)
        .with_override("model", "small-cnn(width=4)")
    )
    run = nuat.fit(row, out=tmp_path_factory.mktemp("export") / "run")
    model = nuat.load_model(run.path).model
    scores = nuat.evaluate(
        model, nuat.load_dataset("digits").test, row.ball, "fgsm", samples=40
    ).to_dict()
    del scores["checksum"]
    notes = ["Gradients seem to be masked."]
    run.save_scores("test-40-fgsm", with_checksum(scores | {"notes": notes}))
    run.save_scores("old", with_checksum(scores | {"model_fingerprint": "another"}))
    return run


def weights_file(path, text, classes, channels, side):
    model = build_model(text, classes, channels).eval()
    metadata = {"model": text, "classes": json.dumps([f"class {i}" for i in range(classes)])}
    write_weights(
        path,
        model.state_dict(),
        metadata | probe_metadata(model, torch.rand(1, channels, side, side)),
    )
    return model


def assert_bit_equal(model, g):
    assert model.state_dict().keys() == g.state_dict().keys()
    for name, value in model.state_dict().items():
        assert (
            torch.equal(value, g.state_dict()[name]) and value.dtype == g.state_dict()[name].dtype
        )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


# model card


def test_model_card_is_complete(run):
    text = model_card(nuat.load_model(run.path), license="mit")
    scores, config = run.scores["test-40-fgsm"], run.config
    assert text.startswith('---\nlicense: "mit"\n') and text.count("---\n") >= 2
    for section in (
        "Threat model",
        "Robust accuracy",
        "Recipe",
        "Data",
        "Use",
        "Versions",
        "License",
    ):
        assert f"\n## {section}\n" in text
    assert "`Linf(0.15)`: perturbations with Linf norm at most 0.15" in text
    for share in (
        scores["clean_accuracy"],
        scores["robust_accuracy"]["fgsm"],
        scores["worst_case_accuracy"],
    ):
        low, high = wilson(round(share * 40), 40)
        row = f"{round(share * 40)} of 40 | {share:.1%} | {low:.1%} to {high:.1%} |"
        assert row in text
    assert json.dumps(config["recipe"]["method"], indent=2).splitlines()[2] in text
    assert text.count("Gradients seem to be masked.") == 1
    assert '"seed": 0' in text and f"{config['parameters']:,} parameters" in text
    sizes = config["data"]
    assert (
        f"`digits`: {sizes['train']:,} train, {sizes['val']:,} val, {sizes['test']:,} test" in text
    )
    assert "10 classes, in order: 0, 1, 2" in text
    assert "[B, 1, 8, 8] in [0, 1]" in text
    assert all(f"{name} {value}" in text for name, value in config["versions"].items())


def test_model_card_omits_evaluations_of_other_weights(run):
    text = model_card(nuat.load_model(run.path))
    assert "| old |" not in text and "1 of the run's evaluations are about other weights" in text


def test_model_card_of_foreign_weights_says_unknown(tmp_path):
    weights_file(tmp_path / "a.safetensors", "small-cnn(width=4)", 3, 1, 8)
    text = model_card(nuat.load_model(tmp_path / "a.safetensors"))
    assert text.count("Unknown: ") == 3 and "have not been attacked" in text
    assert 'license: "unknown"' in text and "Not stated." in text


def test_export_contains_no_private_path(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    config = run.config
    config["recipe"]["data"] = config["data"]["name"] = "folder:/home/me/birds"
    (tmp_path / "run" / "config.json").write_text(json.dumps(with_checksum(config)))
    weights, metadata = read_weights(run.path / "model.safetensors")
    metadata |= {"data": "folder:/home/me/birds"}
    write_weights(tmp_path / "run" / "model.safetensors", weights, metadata)
    folder = nuat.save_pretrained(tmp_path / "run", tmp_path / "out")
    assert not any(b"/home/me" in file.read_bytes() for file in folder.iterdir())
    assert nuat.load_model(folder).data == "folder:birds"


# folder and state dict


def test_exported_folder_is_bit_equal_with_all_metadata(run, tmp_path):
    folder = nuat.save_pretrained(run.path, tmp_path / "deep" / "out", license="mit")
    assert {path.name for path in folder.iterdir()} == {"README.md", "model.safetensors"}
    here, there = nuat.load_model(run.path), nuat.from_pretrained(folder)
    assert_bit_equal(here.model, there.model)
    assert fingerprint(here.model) == fingerprint(there.model)
    assert (there.model_name, there.classes, there.ball) == (
        here.model_name,
        here.classes,
        here.ball,
    )
    assert there.metadata == here.metadata and there.run is None


def test_existing_folder_is_not_overwritten(run, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    for folder in (tmp_path, run.path, tmp_path / "README.md"):
        with pytest.raises(nuat.InputError, match="not an empty folder"):
            nuat.save_pretrained(run.path, folder)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("text", ["resnet18(width=2)", "resnet18(width=2, normalize=cifar10)"])
def test_state_dict_is_plain(tmp_path, text):
    model = weights_file(tmp_path / "a.safetensors", text, 10, 3, 8)
    save_state_dict(tmp_path / "a.safetensors", tmp_path / "a.pt")
    plain = torch.load(tmp_path / "a.pt", weights_only=True)
    assert type(plain) is dict and all(type(value) is torch.Tensor for value in plain.values())
    g = build_model(text, 10, 3)
    g.load_state_dict(plain, strict=True)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(x), g.eval()(x))


# ONNX


@needs_onnx
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("text", "channels", "side"),
    [
        ("small-cnn(width=4)", 1, 8),
        ("mnist-net-trades", 1, 28),
        ("resnet18-nuat(width=4, normalize=cifar10)", 3, 32),
        ("wrn-34-10-nuat(depth=10, width=1)", 3, 32),
    ],
)
def test_onnx_logits_agree_for_any_batch_size(tmp_path, text, channels, side):
    import onnxruntime

    model = weights_file(tmp_path / "a.safetensors", text, 7, channels, side)
    off = nuat.to_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert 0 <= off <= 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for batch in (1, 3, 8):
        x = torch.rand(batch, channels, side, side)
        logits = session.run(["logits"], {"images": x.numpy()})[0]
        with torch.no_grad():
            assert abs(logits - model(x).numpy()).max() <= 1e-5
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "a.onnx"}


@needs_onnx
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_onnx_file_with_other_logits_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nuat.export.onnx._difference", lambda *_: 1e-4)
    with pytest.raises(nuat.InputError, match=r"differ by 1\.0e-04"):
        nuat.to_onnx(run.path, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_onnx_needs_the_image_size(tmp_path):
    torch.save(build_model("small-cnn(width=4)", 10, 1).state_dict(), tmp_path / "a.pt")
    loaded = nuat.load_model(tmp_path / "a.pt", "small-cnn(width=4)", channels=1)
    with pytest.raises(nuat.InputError, match="give --size"):
        nuat.to_onnx(loaded, tmp_path / "a.onnx")


# the Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Replace the Hub by a folder; calls are checked against the signatures of huggingface_hub."""
    place, real = tmp_path / "hub", {}
    if HUB:
        from huggingface_hub import HfApi as Real
        from huggingface_hub import hf_hub_download as download

        real = {"create": Real.create_repo, "upload": Real.upload_folder, "download": download}

    def check(what, *given, **settings):
        if real:
            inspect.signature(real[what]).bind(*given, **settings)

    class HfApi:
        def create_repo(self, repo_id, **settings):
            check("create", self, repo_id, **settings)
            if "/" not in repo_id:
                raise ValueError(f"Repo id must be user/name: {repo_id}\nsee the docs")
            (place / repo_id).mkdir(parents=True, exist_ok=settings["exist_ok"])
            return f"hub:{repo_id}"

        def upload_folder(self, **settings):
            check("upload", self, **settings)
            repo = place / settings["repo_id"]
            shutil.copytree(settings["folder_path"], repo, dirs_exist_ok=True)

    def hf_hub_download(repo_id, filename, **settings):
        check("download", repo_id, filename, **settings)
        if not (place / repo_id).exists():
            raise OSError(f"404: {repo_id}\nmore about that")
        return str(place / repo_id / filename)

    stub = SimpleNamespace(HfApi=HfApi, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    return place


def test_hub_round_trip_is_bit_equal(run, hub):
    assert nuat.push_to_hub(run.path, "me/digits", license="mit") == "hub:me/digits"
    here, there = nuat.load_model(run.path), nuat.from_pretrained("me/digits")
    assert_bit_equal(here.model, there.model)
    assert (there.model_name, there.ball, there.classes) == (
        here.model_name,
        here.ball,
        here.classes,
    )
    assert (hub / "me/digits/README.md").read_text() == model_card(here, "mit")
    nuat.push_to_hub(run.path, "me/digits", license="mit")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: nuat.push_to_hub(run.path, "digits"), "'digits': Repo id must be user/name"),
        (lambda run: nuat.from_pretrained("me/nothing"), "'me/nothing', and no model .*: 404: me"),
    ],
)
def test_hub_error_is_one_line(run, hub, ask, words):
    with pytest.raises(nuat.InputError, match=words) as error:
        ask(run)
    assert "\n" not in str(error.value)


# missing extras, the command line


@pytest.mark.parametrize(
    ("module", "name", "ask"),
    [
        ("onnxscript", "export", lambda run, out: nuat.to_onnx(run.path, out)),
        ("huggingface_hub", "hub", lambda run, out: nuat.push_to_hub(run.path, "me/digits")),
        ("huggingface_hub", "hub", lambda run, out: nuat.from_pretrained("me/digits")),
    ],
)
def test_missing_extra_is_named(run, tmp_path, monkeypatch, module, name, ask):
    for each in ("onnx", "onnxruntime") if name == "export" else ():
        monkeypatch.setitem(sys.modules, each, SimpleNamespace())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        nuat.InputError, match=rf"{module} is not installed: pip install 'nuat\[{name}"
    ):
        ask(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nuat", "export", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return SimpleNamespace(status=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


def test_export_command(run, tmp_path, hub, call):
    out, plain = tmp_path / "out", tmp_path / "net.pt"
    done = call(
        *(run.path, "--out", out, "--state-dict", plain, "--hub", "me/net", "--license", "mit")
    )
    assert (done.status, done.err) == (0, "")
    assert all(str(each) in done.out for each in (out, plain, "hub:me/net"))
    assert 'license: "mit"' in (out / "README.md").read_text()
    assert torch.load(plain, weights_only=True).keys() == run.weights().keys()


@needs_onnx
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_command_for_onnx(tmp_path, call):
    torch.save(build_model("small-cnn(width=4)", 3, 1).state_dict(), tmp_path / "a.pt")
    known = ("--model", "small-cnn(width=4)", "--classes", 3, "--channels", 1, "--size", 8)
    done = call(tmp_path / "a.pt", "--onnx", tmp_path / "a.onnx", *known)
    assert (done.status, done.err) == (0, "") and "in onnxruntime" in done.out
    assert (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give --out FOLDER, --onnx FILE"),
        (["--onnx", "nowhere/a.onnx"], "there is no folder nowhere"),
        (["--state-dict", "nowhere/a.pt"], "there is no folder nowhere"),
        (["--out", "full"], "full is not an empty folder"),
    ],
)
def test_export_error_is_one_line(run, tmp_path, monkeypatch, call, words, expected):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work")
    refused = call(run.path, *words)
    assert refused.status == 2 and refused.err.count("\n") == 1 and expected in refused.err
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "thesis.tex"]
