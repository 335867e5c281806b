"""Files of strangers: whatever they say, no code runs, nothing outside is touched, one line tells.

Each case makes files in a working directory of its own and calls a command on them. A canary module
lies where Python finds it: importing it, and whatever a case names as code, would leave a mark in a
folder beside the working directory. That folder must stay as it is.
"""

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nuat
from nuat.checkpoints import read_weights, write_weights
from nuat.data import registry
from nuat.models import architecture
from nuat.runtime.checksums import with_checksum
from tests.command_line import (
    call,  # noqa: F401
    tree,
)

EVALUATE = "--attack fgsm --samples 10"
NO_MODEL = f"evaluate w.pt --model 'small-cnn(width=4)' --data digits --eps 0.1 {EVALUATE}"
CANARY = """
import pathlib
pathlib.Path({mark!r}).write_text("the canary was imported")
def make(*args, **kwargs): raise SystemExit(9)
"""


class Outside:
    """A pickle that writes a file outside when it is read."""

    def __reduce__(self):
        return Path("../outside/mark").write_text, ("a pickle was read",)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch with an evaluation."""
    folder = tmp_path_factory.mktemp("run") / "run"
    recipe = nuat.get_recipe("fgsm-at", "digits").with_epochs(1)
    nuat.fit(recipe.with_override("model", "small-cnn(width=4)"), out=folder)
    loaded = nuat.load_model(folder)
    images = nuat.load_dataset("digits").test
    metadata = {"data": "digits", "split": "test", "model": loaded.model_name}
    result = nuat.evaluate(
        loaded.model, images, loaded.ball, ["fgsm"], samples=10, metadata=metadata,
        out=folder / "scores" / "test-10-fgsm",
    )  # fmt: skip
    nuat.evaluate(
        loaded.model, images, loaded.ball, ["fgsm"], samples=10, metadata=metadata,
        out=folder / "adv", save_adversarial=True,
    )  # fmt: skip
    nuat.checkpoints.Run(folder).save_scores("test-10-fgsm", result.to_dict())
    return folder


@pytest.fixture
def work(run, tmp_path, monkeypatch):
    """The working directory: a copy of the run, its weights as w.safetensors, and the canary."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("keep me\n")
    (outside / "folder").mkdir()
    shutil.copytree(run, work / "run")
    shutil.copy(run / "model.safetensors", work / "w.safetensors")
    (work / "canary.py").write_text(CANARY.format(mark=str(outside / "mark")))
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(work)
    architecture.trusted_models.clear()
    registry.trusted_datasets.clear()
    yield work
    sys.modules.pop("canary", None)


def metadata(**changes):
    """Weights whose metadata are changed."""

    def change(work):
        weights, about = read_weights(work / "w.safetensors")
        for file in (work / "w.safetensors", work / "run" / "model.safetensors"):
            write_weights(file, weights, {**about, **changes})

    return change


def edit(name, **changes):
    """A JSON file whose fields, by dotted path, are changed; `...` deletes one."""

    def change(work):
        file = work / "run" / name
        text = file.read_text()
        content = json.loads(text if name.endswith(".json") else text.splitlines()[0])
        for path, value in changes.items():
            part, (*steps, last) = content, path.split("__")
            for step in steps:
                part = part[step]
            if value is ...:
                del part[last]
            else:
                part[last] = value
        if content.pop("checksum", None):  # a stranger can write that too
            content = with_checksum(content)
        file.write_text(json.dumps(content) + "\n")

    return change


def content(name, data):
    """A file with this content."""

    def change(work):
        file = work / name
        file.write_bytes(data if isinstance(data, bytes) else data.encode())

    return change


def link(name, target):
    """A link to a place outside, where the name of the run's own file was."""

    def change(work):
        path = work / "run" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(Path("..") / ".." / "outside" / target if "/" not in name else
                        Path("..") / ".." / ".." / "outside" / target)  # fmt: skip

    return change


def saved(value):
    """w.pt with a value that torch.save wrote."""
    return lambda work: torch.save(value, work / "w.pt")


def checkpoint(**changes):
    """A checkpoint of the run whose entries are changed."""

    def change(work):
        file = work / "run" / "checkpoint.pt"
        (work / "run" / "checkpoint.previous.pt").unlink(missing_ok=True)
        state = {**torch.load(file, weights_only=True), **changes}
        del state["checksum"]
        torch.save(with_checksum(state), file)
        (work / "run" / "metrics.jsonl").write_text("")

    return change


def tensors(change_tensors):
    """Weights whose tensors are changed."""

    def change(work):
        weights, about = read_weights(work / "w.safetensors")
        write_weights(work / "w.safetensors", change_tensors(weights), about)

    return change


def arrays(**changes):
    """d.npz with these arrays."""

    def change(work):
        x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
        np.savez(work / "d.npz", **{"x_train": x, "y_train": np.arange(40) % 4, **changes})

    return change


def zipped(**members):
    """d.npz, an archive with these raw members."""

    def change(work):
        with zipfile.ZipFile(work / "d.npz", "w") as archive:
            for name, data in members.items():
                archive.writestr(f"{name}.npy", data)

    return change


def header(shape, dtype="|u1"):
    """The header of an array, without the array."""
    file = io.BytesIO()
    text = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, text)
    return file.getvalue()


DEEP = "[" * 100_000 + "]" * 100_000
WEIGHTS = f"evaluate w.safetensors {EVALUATE}"
RUN = f"evaluate run {EVALUATE}"
RESUME = (
    "train fgsm-at --data digits --epochs 1 --set 'model=small-cnn(width=4)' --out run --seed 0"
)
REPORT = "report run"
NPZ = "train normal --data npz:d.npz --model 'small-cnn(width=4)' --epochs 1 --out new"
EXPORT = "export w.safetensors --out new"

CASES = {
    # code that a file names: models
    "model os:system": (metadata(model="os:system(command='touch ../outside/mark')"), WEIGHTS),
    "model subprocess": (metadata(model="subprocess:call(args='ls')"), WEIGHTS),
    "model canary": (metadata(model="canary:make"), WEIGHTS),
    "model canary of a run": (metadata(model="canary:make"), RUN),
    "model canary in a report": (metadata(model="canary:make"), REPORT),
    "model canary exported": (metadata(model="canary:make"), EXPORT),
    "model canary as init": (
        metadata(model="canary:make"),
        f"{RESUME.replace('--out run', '--out new')} --init w.safetensors",
    ),
    "model a class of torch": (metadata(model="torch.nn:Linear(a=1)"), WEIGHTS),
    "model an imported class": (metadata(model="nuat.models.small:SmallCNN(width=4)"), WEIGHTS),
    "model builtins:eval": (metadata(model="builtins:eval(source='1')"), WEIGHTS),
    "model an expression": (metadata(model="__import__('canary').make()"), WEIGHTS),
    "model a lambda": (metadata(model="small-cnn(width=(lambda: 1)())"), WEIGHTS),
    "model timm": (metadata(model="timm:hf-hub:stranger/model"), WEIGHTS),
    "model timm of a folder": (metadata(model="timm:local-dir:../outside"), WEIGHTS),
    # code and paths that a file names: data
    "data os:system": (metadata(data="os:system(command='touch ../outside/mark')"), WEIGHTS),
    "data subprocess": (metadata(data="subprocess:call(args='ls')"), RUN),
    "data canary": (metadata(data="canary:make"), WEIGHTS),
    "data a folder": (metadata(data="folder:../outside"), WEIGHTS),
    "data a folder by keyword": (metadata(data="folder(path='../outside')"), WEIGHTS),
    "data an archive": (metadata(data="npz:../outside/precious.txt"), WEIGHTS),
    "data with a line break": (metadata(data="folder:" + " " * 3000 + "\nx"), WEIGHTS),
    "config data canary": (edit("config.json", data__name="canary:make"), REPORT),
    "config data os:system": (edit("config.json", data__name="os:system(command='x')"), REPORT),
    "config data a folder": (edit("config.json", data__name="folder:../outside"), REPORT),
    "config recipe data canary": (edit("config.json", recipe__data="canary:make"), REPORT),
    "config init_from": (edit("config.json", init_from="canary:make"), RESUME),
    # metadata of the wrong type or size
    "channels a word": (metadata(channels="three"), WEIGHTS),
    "channels negative": (metadata(channels="-1"), WEIGHTS),
    "channels huge": (metadata(channels="99999999999999999999"), WEIGHTS),
    "channels null": (metadata(channels="null"), EXPORT),
    "image_size a number": (metadata(image_size="8"), WEIGHTS),
    "image_size huge": (metadata(image_size="[100000, 100000]"), WEIGHTS),
    "image_size floats": (metadata(image_size="[8.5, 8]"), f"{EXPORT}"),
    "classes a number": (metadata(classes="10"), WEIGHTS),
    "classes numbers": (metadata(classes="[1, 2, 3]"), WEIGHTS),
    "classes no JSON": (metadata(classes="cat, dog"), WEIGHTS),
    "classes nested": (metadata(classes=DEEP), WEIGHTS),
    "classes many": (metadata(classes=json.dumps(["x"] * 20000)), EXPORT),
    "ball a call": (metadata(ball="__import__('canary')"), WEIGHTS),
    "ball of a wrong eps": (metadata(ball="Linf('x')"), WEIGHTS),
    "ball infinite": (metadata(ball="L2(1e999)"), WEIGHTS),
    "epoch a word": (metadata(epoch="last"), WEIGHTS),
    "probe_logits words": (metadata(probe_logits='["a"]'), WEIGHTS),
    "probe_logits short": (metadata(probe_logits="[0.5, 0.25]"), WEIGHTS),
    "probe_logits nested": (metadata(probe_logits="[[1], [2]]"), WEIGHTS),
    "version huge": (metadata(format_version="9" * 5000), WEIGHTS),
    "width huge": (metadata(model="small-cnn(width=1000000)"), WEIGHTS),
    "width 9000": (metadata(model="resnet18(width=9000)"), WEIGHTS),
    "depth huge": (metadata(model="wrn-34-10(depth=1000000000)"), WEIGHTS),
    "width in brackets": (metadata(model="small-cnn(width=" + "(" * 5000 + ")"), WEIGHTS),
    "names with control characters": (metadata(recipe="\x1b[2J\r\n[/b]:cat:"), EXPORT),
    # weights files that are none
    "a pickle": (lambda work: (work / "w.pt").write_bytes(pickle.dumps(Outside())), NO_MODEL),
    "a pickle in an archive": (saved({"w": Outside()}), NO_MODEL),
    "a list": (saved([torch.zeros(2)]), NO_MODEL),
    "keys that are numbers": (saved({1: torch.zeros(2)}), NO_MODEL),
    "a sparse tensor": (saved({"head.weight": torch.eye(10, 16).to_sparse()}), NO_MODEL),
    "a cut archive": (content("w.pt", b"PK\x03\x04" + b"\0" * 40), NO_MODEL),
    "an empty header": (content("w.safetensors", b"\xff" * 16), WEIGHTS),
    "a long header": (content("w.safetensors", (2**60).to_bytes(8, "little")), WEIGHTS),
    "integers": (tensors(lambda w: {k: v.to(torch.int8) for k, v in w.items()}), WEIGHTS),
    "other shapes": (tensors(lambda w: {k: v.flatten()[:1] for k, v in w.items()}), WEIGHTS),
    "no tensors": (tensors(lambda w: {}), WEIGHTS),
    # checkpoints
    "a checkpoint with code": (
        lambda work: torch.save({"model": Outside()}, work / "run" / "checkpoint.pt"),
        RESUME,
    ),
    "a checkpoint that is a list": (
        lambda work: torch.save([1], work / "run" / "checkpoint.pt"),
        RESUME,
    ),
    "a checkpoint of another model": (checkpoint(model={"w": torch.zeros(1)}), RESUME),
    "a checkpoint without epoch": (checkpoint(epoch="all"), RESUME),
    "a checkpoint with wrong losses": (checkpoint(losses=["x", None]), RESUME),
    "a checkpoint with a wrong optimizer": (checkpoint(optimizer={"state": 3}), RESUME),
    # config.json, metrics.jsonl, scores
    "config a list": (content("run/config.json", "[]"), REPORT),
    "config nested": (content("run/config.json", '{"recipe": ' + DEEP), REPORT),
    "config without a recipe": (edit("config.json", recipe={}), REPORT),
    "config epochs a word": (edit("config.json", recipe__epochs="many"), RUN),
    "config ball a number": (edit("config.json", recipe__ball=3), REPORT),
    "config ball with other fields": (edit("config.json", recipe__ball={"is": "Linf"}), REPORT),
    "config ball of a list": (edit("config.json", recipe__ball={"is": ["Linf"]}), REPORT),
    "config classes a number": (edit("config.json", data__classes=10), REPORT),
    "config parameters a word": (edit("config.json", parameters="few"), "export run --out new"),
    "config versions a list": (edit("config.json", versions=[1]), REPORT),
    "metrics without epoch": (edit("metrics.jsonl", epoch=...), REPORT),
    "metrics of words": (edit("metrics.jsonl", loss="low", val_clean=[1]), REPORT),
    "metrics infinite": (
        content("run/metrics.jsonl", '{"format_version": 1, "epoch": 1e999}\n'),
        REPORT,
    ),
    "metrics with odd schedules": (edit("metrics.jsonl", lam=1e308, mu="x", lam_began=3), REPORT),
    "metrics of bytes": (content("run/metrics.jsonl", b"\xff\xfe\0\0\n"), REPORT),
    "scores a list": (content("run/scores/a.json", "[1]"), REPORT),
    "scores of words": (edit("scores/test-10-fgsm.json", labels=["a"] * 10), REPORT),
    "scores of two lengths": (edit("scores/test-10-fgsm.json", robust={"a": [True]}), REPORT),
    "scores of no image": (
        edit("scores/test-10-fgsm.json", indices=[], labels=[], predicted=[], robust={}),
        REPORT,
    ),
    "scores with a list as data": (
        edit("scores/test-10-fgsm.json", metadata={"data": [], "split": {}}),
        REPORT,
    ),
    "scores with markup": (
        edit("scores/test-10-fgsm.json", notes=["[/b]"], ball="[red]:cat:\x1b[2J"),
        REPORT,
    ),
    "scores exported": (edit("scores/test-10-fgsm.json", seconds=7), "export run --out new"),
    # the folder of an evaluation
    "log of words": (edit("scores/test-10-fgsm/log-0.jsonl", outcomes__index=["a"]), RUN),
    "log of another part": (edit("scores/test-10-fgsm/log-0.jsonl", part="canary"), RUN),
    "log nested": (content("run/scores/test-10-fgsm/log-0.jsonl", DEEP + "\n"), RUN),
    "evaluation config a list": (content("run/scores/test-10-fgsm/config.json", "[]"), RUN),
    "adversarial images that are none": (
        content("run/adv/adversarial-0-000000.safetensors", "dear diary"),
        f"{RUN} --save-adversarial --out run/adv",
    ),
    "adversarial images without metadata": (
        lambda work: save_file(
            {"index": torch.zeros(1)}, work / "run/adv/adversarial-0-000000.safetensors"
        ),
        f"{RUN} --save-adversarial --out run/adv",
    ),
    "evaluation scores nested": (
        content("run/scores/test-10-fgsm/scores.json", DEEP),
        "report run/scores/test-10-fgsm",
    ),
    # links that lead outside
    "report through a link": (link("report.html.partial", "precious.txt"), REPORT),
    "report in place of a link": (link("report.html", "precious.txt"), REPORT),
    "scores through a link": (link("scores", "folder"), RUN),
    "log through a link": (link("metrics.jsonl", "precious.txt"), RESUME),
    "an evaluation through a link": (link("scores/test-10-fgsm", "folder"), RUN),
    "a checkpoint through a link": (link("checkpoint.pt.partial", "precious.txt"), RESUME),
    # npz archives
    "npz of objects": (arrays(x_train=np.array([Outside()], dtype=object)), NPZ),
    "npz a pickle": (content("d.npz", pickle.dumps(Outside())), NPZ),
    "npz no archive": (content("d.npz", "dear diary"), NPZ),
    "npz labels huge": (arrays(y_train=np.array([10**18] * 40)), NPZ),
    "npz labels negative": (arrays(y_train=-np.arange(40)), NPZ),
    "npz classes a number": (arrays(classes=np.array(3)), NPZ),
    "npz classes objects": (arrays(classes=np.array([Outside()], dtype=object)), NPZ),
    "npz shape huge": (zipped(x_train=header((10**9, 10**9)), y_train=header((10**9,))), NPZ),
    "npz header of code": (zipped(x_train=b"\x93NUMPY\x01\0\x20\0__import__('canary')" * 9), NPZ),
    "npz no arrays": (zipped(x_train=b"x", y_train=b"y"), NPZ),
    "npz names as paths": (lambda work: np.savez(work / "d.npz", **{"../x": np.zeros(3)}), NPZ),
    "npz strings": (arrays(x_train=np.array(["a"] * 40)), NPZ),
}


def test_there_are_at_least_65_cases():
    assert len(CASES) >= 65


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_a_stranger_runs_no_code(work, call, case):  # noqa: F811
    make, line = CASES[case]
    make(work)
    outside = work.parent / "outside"
    before = tree(outside)
    outcome = call(line)
    assert tree(outside) == before
    assert "canary" not in sys.modules
    assert not (work.parent / "mark").exists() and not (work / "mark").exists()
    errors = [text for text in outcome.err.splitlines() if not text.startswith("warning: ")]
    if outcome.status:
        assert outcome.status == 2, outcome
        assert len(errors) == 1 and errors[0].startswith("error: "), outcome.err
    else:
        assert errors == []
    shown = outcome.out + outcome.err
    assert "\x1b" not in shown and "\r" not in shown


def test_the_canary_sings_if_the_user_names_it(work, call):  # noqa: F811
    """The check of the checks: what the user types does run."""
    call(f"{WEIGHTS} --model canary:make")
    assert (work.parent / "outside" / "mark").exists() and os.getcwd() == str(work)
    assert "canary" in sys.modules


def test_a_path_is_followed_if_the_user_types_it(work, call):  # noqa: F811
    """Training, the command it prints, a report: the name is typed again each time."""
    arrays()(work)
    trained = call(f"{NPZ} --eps 0.1 --set batch_size=8 --set 'augment=Augment()'")
    assert trained.status == 0 and "nuat evaluate new --data npz:d.npz" in trained.out
    registry.trusted_datasets.clear()
    for line in ("evaluate new --attack fgsm", "evaluate new --attack fgsm --data-dir ."):
        refused = call(line)
        assert refused.status == 2 and "add --data 'npz:d.npz'" in refused.err
    assert "without images" in call("report new").err
    done = call("evaluate new --attack fgsm --data npz:d.npz")
    assert (done.status, done.err) == (0, "") and (work / "new" / "scores").exists()
    registry.trusted_datasets.clear()
    reported = call("report new --data npz:d.npz")
    assert (reported.status, reported.err) == (0, "") and "fgsm" in reported.out


def test_a_class_is_trusted_in_the_process_that_passed_an_object_of_it(work):
    from nuat.models import model_name, requires_trust
    from nuat.models.small import SmallCNN

    name = "nuat.models.small:SmallCNN"
    assert requires_trust(name) and model_name(SmallCNN(classes=3)) == name
    assert not requires_trust(name) and requires_trust(f"{name}(width=3)")


@pytest.mark.parametrize("indices", ["0-99999999999999", "9" * 5000, "w.safetensors"])
def test_indices_have_bounds(work, call, indices):  # noqa: F811
    outcome = call(f"evaluate w.safetensors --attack fgsm --indices {indices}")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and "--indices" in outcome.err
