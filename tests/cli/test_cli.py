"""The command line: what it does, and that what a user got wrong is one clear line."""

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import attack_registry
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights
from nuat.cli.app import COMMANDS
from nuat.data import dataset_registry
from nuat.models import model_registry
from nuat.runtime import device
from tests.command_line import MARK, TINY, assert_refused, tree


def launch(line, cwd):
    command = [sys.executable, "-m", "nuat.cli", *shlex.split(line)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


# what it does


def test_train_writes_a_run_and_prints_the_next_command(in_empty, call):
    done = call(f"train nuat-wa {TINY} --seed 3 --out mine")
    assert (done.status, done.err) == (0, "")
    assert "epoch 1/1" in done.out
    assert "The weights are in mine/model.safetensors." in done.out
    assert done.out.splitlines()[-1] == "nuat evaluate mine"
    config = Run.open("mine").config
    assert config["seed"] == 3 and config["model"] == "small-cnn(width=4)"
    assert config["recipe"]["name"] == "nuat-wa" and config["recipe"]["epochs"] == 1
    assert [line["epoch"] for line in Run.open("mine").metrics] == [1]
    weights = read_weights("mine/model.safetensors")[0]
    assert weights["head.weight"].shape == (10, 16)

    before = tree(in_empty)
    again = call(f"train nuat-wa {TINY} --seed 3 --out mine")
    assert again.status == 0 and "epoch 1/1" not in again.out
    assert tree(in_empty) == before


def test_by_default_the_folder_is_named_after_recipe_data_and_seed(in_empty, call):
    assert call(f"train normal {TINY} --seed 7").status == 0
    assert Run.open("runs/normal-digits-7").finished


def test_the_flags_of_train_reach_the_recipe(in_empty, call):
    line = "train nuat2-wa --epochs 2 --model 'small-cnn(width=4)' --norm l2 --eps 128/255"
    done = call(f"{line} --set lam=3 --set batch_size=100 --max-time 0s --out mine")
    assert done.status == 75 and "run the same command again to go on" in done.err
    assert "The weights are in" not in done.out
    recipe = Run.open("mine").config["recipe"]
    assert recipe["batch_size"] == 100 and recipe["epochs"] == 2
    assert recipe["method"]["lam"] == {"is": "Constant", "value": 3.0}
    ball = {"is": "L2", "eps": 128 / 255}
    assert recipe["ball"] == recipe["method"]["ball"] == ball
    on = call(f"{line} --set lam=3 --set batch_size=100 --max-time 1h --out mine")
    assert on.status == 0 and "The weights are in" in on.out
    assert len(Run.open("mine").metrics) == 2


def test_evaluate_a_run(in_samples, call):
    done = call("evaluate run --attack fgsm --attack 'pgd-2(restarts=2)' --samples 50 --seed 4")
    assert (done.status, done.err) == (0, "")
    scores = nuat.EvaluationResult.from_dict(
        json.loads(
            (in_samples / "run/scores/test-50-fgsm-pgd-2-restarts-2-seed-4.json").read_text()
        )
    )
    known = nuat.load_model("run")
    expected = nuat.evaluate(
        known.model,
        nuat.load_dataset("digits").test,
        known.ball,
        ["fgsm", "pgd-2(restarts=2)"],
        samples=50,
        seed=4,
    )
    assert (scores.indices, scores.robust) == (expected.indices, expected.robust)
    assert len(scores.indices) == 50 and scores.attacks == expected.attacks
    for share in (
        scores.clean_accuracy,
        scores.robust_accuracy("fgsm"),
        scores.worst_case_accuracy,
    ):
        assert f"{share:.1%}" in done.out
    assert f"{scores.robust_accuracy_8bit('fgsm'):.1%}" in done.out
    outside = sum(scores.outside_8bit.values())
    assert "in 8 bits: adversarial images rounded to multiples of 1/255" in done.out
    assert f"{outside} of {outside + inside_8bit(scores)} adversarial images leave" in done.out
    assert "run/scores/test-50-fgsm-pgd-2-restarts-2-seed-4/verdicts.jsonl" in done.out


def inside_8bit(scores):
    """The adversarial images that rounding leaves in the ball."""
    broken = sum(part["broken"] for parts in scores.parts.values() for part in parts.values())
    return int(broken) - sum(scores.outside_8bit.values())


def test_evaluate_another_split_and_another_file(in_samples, call, tmp_path):
    before = tree(in_samples)
    done = call(f"evaluate run --attack fgsm --split val --out {tmp_path / 'mine'}")
    assert done.status == 0
    scores = json.loads((tmp_path / "mine" / "scores.json").read_text())
    assert scores["num_images"] == 200
    assert scores["labels"] == nuat.load_dataset("digits").val.y.tolist()
    assert tree(in_samples) == before


def test_weights_and_their_run_have_equal_results(in_samples, call, tmp_path):
    known = "--model 'small-cnn(width=4)' --data digits --attack fgsm --eps 0.1"
    for source in ("weights.pt", "nested.pt", "run"):
        done = call(f"evaluate {source} {known} --out {tmp_path / source.replace('.', '')}")
        assert (done.status, done.err) == (0, "")
    one, other = (
        json.loads((tmp_path / name / "scores.json").read_text()) for name in ("weightspt", "run")
    )
    assert one["robust"] == other["robust"] and one["ball"] == "Linf(0.1)"
    before = tree(in_samples)
    assert call(f"evaluate weights.pt {known}").status == 0
    assert tree(in_samples) == before, "without --out, results for weights alone are not saved"


def test_report_of_two_runs(in_samples, call, tmp_path):
    done = call(f"report run run --out {tmp_path / 'page.html'}")
    assert (done.status, done.err) == (0, "")
    assert "page.html" in done.out and "nuat" in done.out
    page = (tmp_path / "page.html").read_text()
    assert "<html" in page and "nuat" in page and "data:image/png" in page


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("attacks", attack_registry),
        ("models", model_registry),
        ("data", dataset_registry),
    ],
)
def test_list(call, kind, names):
    done = call(f"list {kind}")
    assert (done.status, done.err) == (0, "")
    shown = {line.split()[0] for line in done.out.splitlines() if line[:1].strip()}
    assert set(names) <= shown


def test_the_recipes_fit_80_columns(call, monkeypatch):
    monkeypatch.setattr("nuat.cli.list.console.width", 80)
    lines = call("list recipes").out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert all(" ".join(recipe.note.split()) in text for recipe in nuat.list_recipes())


def test_list_recipes(call):
    done = call("list recipes --data digits")
    assert done.status == 0
    rows = [line.split()[:2] for line in done.out.splitlines()[1:] if line[:1].strip()]
    assert rows == [[row.name, row.data] for row in nuat.list_recipes() if row.data == "digits"]
    whole = call("list recipes").out
    assert all(row.name in whole for row in nuat.list_recipes()) and "cifar10" in whole


@pytest.mark.parametrize("norm", ["linf", "Linf", "LINF", "l2", "L2"])
def test_a_norm_is_written_as_tables_print_it(in_samples, call, norm):
    done = call(f"evaluate run --attack fgsm --samples 10 --eps 0.1 --norm {norm}")
    assert done.status == 0 and f"{norm.capitalize()}(0.1)" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_fits_80_columns_and_has_an_example(call, name):
    text = call(f"{name} --help").out
    assert max(map(len, text.splitlines())) <= 80
    _, example = COMMANDS[name]
    assert f"Example: {example}" in " ".join(text.split())
    assert example.startswith(f"nuat {name}")
    # an example names no option that the command lacks
    assert all(word in text for word in example.split() if word.startswith("--"))


def test_help_names_the_default_attacks(call):
    text = " ".join(call("evaluate --help").out.replace("│", " ").split())
    first, second, third = nuat.evaluation.DEFAULT_ATTACKS
    assert f"Default: {first}, {second} and {third}." in text


def test_that_nothing_is_saved_is_said_before_the_work(in_samples, call, monkeypatch):
    known = "--model 'small-cnn(width=4)' --data digits --attack fgsm --eps 0.1 --samples 10"
    monkeypatch.setattr(nuat.evaluation, "evaluate", interrupt)
    assert "The result will not be saved; --out" in call(f"evaluate weights.pt {known}").out
    assert "not be saved" not in call("evaluate run --attack fgsm --samples 10").out


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_imported_file_has_its_own_name(in_empty, call):
    (in_empty / "folder").mkdir()
    (in_empty / "folder" / "birds.py").write_text(
        "import nuat\nfrom nuat.models.small import SmallCNN\n"
        "def make(classes, channels):\n    return SmallCNN(classes, channels, 4)\n"
    )
    line = "--import folder/birds.py --model birds:make --max-time 0s --out mine"
    done = call(f"train normal {line}")
    assert done.status == 75
    assert Run.open("mine").config["model"] == "birds:make"


@pytest.mark.parametrize("name", ["json.py", "torch.py", "shlex.py"])
def test_an_imported_file_hides_no_other_module(in_empty, call, name):
    (in_empty / name).write_text("")
    words = "another Python module", "rename the file"
    assert_refused(call, in_empty, f"train normal --import {name}", *words)


def test_an_imported_file_is_a_python_file(in_empty, call):
    (in_empty / "notes.txt").write_text("")
    assert_refused(call, in_empty, "list models --import notes.txt", "must end in .py")


def test_reproduce_does_nothing_twice(in_empty, call):
    rows = "reproduce digits --rows normal,fgsm-at --epochs-scale 0.025 --out t"
    line = f"{rows} --attack fgsm --attack pgd-2"
    done = call(line)
    assert (done.status, done.err) == (0, "")
    assert {"t/normal-0", "t/fgsm-at-0", "t/report.html", "t/fgsm-at-0/scores/test.json"} <= set(
        tree(in_empty)
    )
    stamps = {path: path.stat().st_mtime_ns for path in in_empty.rglob("*.json")}
    assert len(stamps) == 9
    again = call(line)
    assert again.status == 0 and "epoch 1/1" not in again.out
    assert stamps == {path: path.stat().st_mtime_ns for path in in_empty.rglob("*.json")}
    assert "normal" in again.out and "fgsm-at" in again.out and "pgd-2" in again.out


def test_reproduce_scores_again_what_was_scored_otherwise(in_empty, call):
    line = "reproduce digits --rows normal --epochs-scale 0.025 --attack fgsm --out t"
    assert call(line).status == 0
    scores = Path("t/normal-0/scores/test.json")
    expected = json.loads(scores.read_text())["robust"]
    assert call("evaluate t/normal-0 --attack fgsm --eps 0.9 --out other").status == 0
    shutil.copy("other/scores.json", scores)
    assert json.loads(scores.read_text())["robust"] != expected
    assert call(line).status == 0
    assert json.loads(scores.read_text())["robust"] == expected


def test_an_imported_file_registers_a_model(in_empty, call):
    name = "small-again"
    (in_empty / "own.py").write_text(
        "import nuat\nfrom nuat.models.small import SmallCNN\n"
        f"nuat.register_model({name!r})(lambda classes, channels: SmallCNN(classes, channels, 4))\n"
    )
    try:
        done = call(f"train normal --epochs 1 --model {name} --import own.py --out mine")
        assert (done.status, done.err) == (0, "")
        assert Run.open("mine").config["model"] == name
    finally:
        model_registry.pop(name, None)


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_line(in_empty, call):
    name = "ends-in-softmax"
    (in_empty / "own.py").write_text(
        "import nuat\nfrom torch import nn\nfrom nuat.models.small import SmallCNN\n"
        "def build(classes, channels):\n"
        "    return nn.Sequential(SmallCNN(classes, channels, 4), nn.Softmax(1))\n"
        f"nuat.register_model({name!r})(build)\n"
    )
    try:
        done = call(f"train normal --epochs 1 --model {name} --import own.py --out mine")
    finally:
        model_registry.pop(name, None)
    assert done.status == 0
    assert done.err.startswith("warning: the network's outputs are non-negative and sum to 1")
    assert len(done.err.splitlines()) == 1 and "softmax" in done.err


# as a program


def test_as_a_program(tmp_path):
    done = launch(f"train normal {TINY} --out mine", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert Run.open(tmp_path / "mine").finished


def test_the_program_runs_no_code_of_a_pickle(sample_files, tmp_path, monkeypatch):
    line = "evaluate code.pt --model 'small-cnn(width=4)' --data digits --eps 0.1"
    refused = launch(line, sample_files)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: code.pt holds more than weights")
    assert refused.stdout == ""
    assert not list(sample_files.rglob(MARK))
    monkeypatch.chdir(tmp_path)
    pickle.loads((sample_files / "code.pt").read_bytes())
    assert Path(MARK).exists(), "the file does hold code that runs"


# errors of the user

MODEL = "--model 'small-cnn(width=4)'"
KNOWN = f"{MODEL} --data digits --eps 0.1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train nuat-w", ["'nuat-w'", "did you mean 'nuat-wa'?"]),
        ("train normal --model small-cn", ["'small-cn'", "did you mean 'small-cnn'?"]),
        ("train normal --set model=small-cn", ["did you mean 'small-cnn'?"]),
        ("train normal --model 'small-cnn(widht=3)'", ["small-cnn(widht=3)", "widht"]),
        ("train normal --model 'small-cnn(width=wide)'", ["wide"]),
        ("train normal --model 'small-cnn('", ["small-cnn("]),
        ("train normal --model mnist-net", ["does not take images [2, 1, 8, 8]"]),
        ("train normal --data digit", ["'digit'", "digits"]),
        ("train normal --data 'digits(size=3)'", ["digits(size=3)", "size"]),
        ("train normal --eps 8", ["eps is 8", "did you mean 8/255?"]),
        ("train normal --eps 8/0", ["8/0"]),
        ("train normal --eps -0.1", ["-0.1", "0 up"]),
        ("train normal --eps banana", ["banana"]),
        ("train normal --eps True", ["True", "number"]),
        ("train normal --norm l3 --eps 0.1", ["unknown norm 'l3'", "l2", "linf"]),
        ("train normal --norm l2", ["l2", "--eps"]),
        ("train nuat --set lam", ["--set", "field=value", "'lam'"]),
        ("train nuat --set lamb=3", ["'lamb'", "did you mean 'lam'?"]),
        ("train nuat --set lam.too=3", ["'too'", "did you mean 'to'?"]),
        ("train nuat --set lam.to.x=3", ["lam.to.x"]),
        ("train nuat --set lam=hello", ["hello"]),
        ("train nuat --set lam=Uniform()", ["lam", "Schedule", "Uniform()"]),
        ("train nuat --set 'lam=__import__(\"os\")'", ["__import__"]),
        ("train nuat --set ball.eps=0.1", ["--eps", "--norm"]),
        ("train nuat --set method.ball=Linf(0.1)", ["--eps", "--norm"]),
        ("train nuat --set epochs=3", ["--epochs"]),
        ("train nuat --set batch_size=0", ["batch_size is 0"]),
        ("train nuat --set batch_size=1.5", ["batch_size", "1.5"]),
        ("train nuat --set on_overfitting=explode", ["'explode'", "rollback", "stop", "warn"]),
        ("train nuat --epochs 0", ["epochs is 0", "from 1"]),
        ("train nuat --max-time soon", ["--max-time", "30m", "'soon'"]),
        ("train nuat --max-time ''", ["--max-time is ''"]),
        ("train normal --data-dir ''", ["--data-dir is ''"]),
        ("train normal --out=", ["--out is ''"]),
        ("train normal --model ''", ["--model is ''"]),
        ("train normal --seed -1", ["seed is -1", "from 0 up"]),
        ("train normal --set momentum=2", ["momentum is Constant(value=2.0)", "[0, 1)"]),
        ("train normal --set momentum=-0.1", ["momentum", "[0, 1)"]),
        ("train normal --set 'momentum=LinearRamp(to=1, epochs=3)'", ["momentum", "[0, 1)"]),
        ("evaluate run --seed -1", ["seed is -1", "from 0 up"]),
        ("evaluate run --norm L3", ["unknown norm 'l3'", "linf"]),
        ("train nuat --import missing.py", ["--import", "missing.py", "no such file"]),
        ("train nuat --import thesis", ["--import", "thesis", "no such file"]),
        ("evaluate run --attack pgdd-3", ["unknown attack 'pgdd'", "did you mean 'pgd'?"]),
        ("evaluate run --attack pgd-0", ["steps is 0", "from 1"]),
        ("evaluate run --attack 'pgd-2(steps=3)'", ["pgd-2(steps=3)", "twice"]),
        ("evaluate run --attack 'pgd-2(ball=Linf(1))'", ["--eps", "--norm"]),
        ("evaluate run --attack 'pgd-2(restrats=3)'", ["pgd-2(restrats=3)", "restrats"]),
        ("evaluate run --samples 0", ["samples is 0", "whole number from 1"]),
        ("evaluate run --samples -5", ["samples is -5", "whole number from 1"]),
        ("evaluate run --samples 401", ["401 samples", "400 images"]),
        ("evaluate run --split banana", ["'banana'", "train, val, test"]),
        ("evaluate run --data digit", ["'digit'", "did you mean 'digits'?"]),
        ("evaluate run --eps 8", ["did you mean 8/255?"]),
        ("evaluate run --norm l3", ["unknown norm 'l3'"]),
        ("evaluate run --norm l2", ["l2", "--eps"]),
        ("evaluate run --import missing.py", ["missing.py", "no such file"]),
        (
            "evaluate weights.pt --model resnet18 --data digits --eps 0.1",
            ["does not fit resnet18", "conv1.weight is missing"],
        ),
        (
            "evaluate run --model resnet18",
            ["run holds weights of small-cnn(width=4), not of resnet18"],
        ),
        (f"evaluate nowhere.pt {KNOWN}", ["no weights file nowhere.pt"]),
        ("evaluate nowhere.safetensors", ["no weights file nowhere.safetensors"]),
        ("evaluate thesis", ["thesis is not a run folder"]),
        ("evaluate other", ["other"]),
        ("evaluate weights.pt --data digits --eps 0.1", ["weights.pt", "--model"]),
        (f"evaluate weights.pt --data digits {MODEL}", ["threat model", "--eps 8/255"]),
        (f"evaluate weights.pt --data digits {MODEL} --norm l2", ["threat model", "--eps"]),
        (f"evaluate weights.pt {KNOWN.replace('4', '8')}", ["does not fit", "not [8, 1"]),
        (f"evaluate text.pt {KNOWN}", ["text.pt", "weights"]),
        (f"evaluate text.safetensors {KNOWN}", ["text.safetensors", "cannot be read as weights"]),
        (f"evaluate half.pt {KNOWN}", ["half.pt", "cannot be read as weights"]),
        (f"evaluate code-zip.pt {KNOWN}", ["code-zip.pt", "was not loaded", "pickle"]),
        (f"evaluate code.pt {KNOWN}", ["code.pt", "was not loaded", "pickle"]),
        ("evaluate untold.safetensors --eps 0.1", ["Linf(0.1"]),
        ("report thesis", ["thesis is not a run folder"]),
        ("report nowhere", ["nowhere is not a run folder"]),
        ("reproduce digit", ["'digit'", "did you mean 'digits'?"]),
        ("reproduce digits --rows normal,nuat-w", ["did you mean 'nuat-wa'?"]),
        ("reproduce digits --rows normal --seeds 0", ["seeds is 0", "from 1 up"]),
        ("reproduce cifar10", ["unknown table 'cifar10'", "cifar10-resnet18, cifar10-wrn"]),
        ("reproduce cifar10-wrn --rows nuat-wa", ["row of the table", "nuat-wa-wrn"]),
        ("reproduce mnist --data digits", ["mnist, not 'digits'", "mnist(train=6000)"]),
    ],
)
def test_is_one_line_and_nothing_is_written(in_samples, call, line, words):
    error = assert_refused(call, in_samples, line, *words)
    assert "None" not in error and not error.rstrip().endswith(":")
    assert not Path(MARK).exists()


def test_a_folder_that_holds_something_else_is_refused(in_samples, call):
    train = f"train normal {TINY} --out"
    assert_refused(
        call, in_samples, f"{train} run", "run holds another run", "recipe.name: normal here"
    )
    assert_refused(
        call, in_samples, f"{train} thesis", "thesis is not empty and not a run", "--out"
    )
    assert_refused(call, in_samples, f"{train} weights.pt", "weights.pt is not empty and not a run")
    same = "train nuat --epochs 1 --set 'model=small-cnn(width=4)' --out run"
    assert_refused(call, in_samples, f"{same} --seed 1", "seed: 1 here, 0 there")
    assert_refused(call, in_samples, f"{same} --eps 0.01", "0.01 here")


def test_a_missing_data_set_says_where_it_was_looked_for(in_samples, call, monkeypatch):
    monkeypatch.setenv("NUAT_DATA", "/nowhere")
    assert_refused(call, in_samples, "train nuat --data cifar10", "/nowhere/cifar10", "NUAT_DATA")
    assert_refused(call, in_samples, "reproduce mnist", "/nowhere/mnist", "NUAT_DATA")


def test_a_loss_that_is_not_finite_is_one_line_and_status_1(in_empty, call):
    line = f"train nuat {TINY} --set lr=1e30 --set weight_decay=0 --out mine"
    outcome = call(line)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: epoch 1, batch ") and "Training stopped" in outcome.err
    assert set(tree(in_empty)) == {"mine", "mine/config.json"}


def test_no_checkpoint_is_promised_where_there_is_none(in_empty, call):
    line = f"train normal {TINY} --set lr=1e30 --set weight_decay=0 --out mine"
    outcome = call(line)
    assert outcome.status == 1 and "the loss is" in outcome.err
    there = (in_empty / "mine" / "checkpoint.pt").exists()
    assert ("holds the last good checkpoint" in outcome.err) == there


# errors that are found later, by the parts below the command line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train nuat --epochs -3", ["epochs is -3"]),
        ("train nuat --set ema_decay=1.5", ["ema_decay", "1.5"]),
        ("train nuat --set weight_decay=-1", ["weight_decay", "-1"]),
        ("train nuat --set 'augment=Augment(pad=-3)'", ["pad", "-3"]),
        ("train nuat --set 'lr=-1'", ["lr", "-1"]),
        ("train nuat --set distance=ce_per_image", ["distance"]),
        ("train nuat --model 'small-cnn(width=-1)'", ["small-cnn(width=-1)"]),
        ("train nuat --device banana", ["banana", "device"]),
        ("train nuat --device cuda:99", ["cuda:99"]),
        ("train nuat --max-time nan", ["--max-time", "nan"]),
        ("train nuat --out weights.pt/sub", ["weights.pt"]),
        ("train nuat --set data=mnist", ["--data"]),
        ("evaluate run --device banana", ["banana"]),
        ("evaluate run --batch-size 0", ["batch", "0"]),
        ("evaluate run --batch-size -1", ["batch", "-1"]),
        ("evaluate run --attack 'pgd-2(start=3)'", ["start"]),
        ("evaluate run --attack 'pgd-2(loss=nuclear)'", ["loss"]),
        ("evaluate run --attack 'pgd-2(train_mode=3)'", ["train_mode"]),
        ("evaluate run --attack fgsm --samples 10 --out weights.pt/x.json", ["weights.pt"]),
        (f"evaluate weights.pt {MODEL} --eps 0.1", ["--data"]),
        (f"evaluate empty.pt {KNOWN}", ["empty.pt"]),
        ("reproduce digits --epochs-scale 0", ["epochs_scale is 0", "above 0"]),
        ("reproduce digits --rows normal --attack pgdd", ["did you mean 'pgd'?"]),
        ("list recipes --data digit", ["'digit'", "digits"]),
    ],
)
def test_is_one_line_and_nothing_is_written_also_here(
    in_samples_copy, call, line, words, monkeypatch
):
    monkeypatch.setattr(nuat.reproduce, "fit", None)  # it must not come to this
    if line.startswith("train"):  # so that what is wrongly accepted is soon over
        line += "" if "--epochs" in line else " --epochs 1"
        line += "" if "--model" in line else f" {MODEL}"
    error = assert_refused(call, in_samples_copy, line, *words)
    assert not error.rstrip().endswith(":")


@pytest.mark.parametrize("folder", ["other", "torn"])
def test_a_config_json_of_something_else_is_no_run(in_samples_copy, call, folder):
    assert_refused(call, in_samples_copy, f"report {folder}", folder, "run", warned=True)
    assert_refused(call, in_samples_copy, f"train normal {TINY} --out {folder}", folder, "run")


def test_text_is_not_taken_for_a_pickle_with_code(in_samples, call):
    assert "code" not in assert_refused(call, in_samples, f"evaluate text.pt {KNOWN}", "text.pt")


@pytest.mark.parametrize(
    "line",
    [
        "train nuat --epochs two",
        "train nuat --seed x",
        "train",
        "train nuat --bananas 3",
        "bananas",
        "list bananas",
        "report",
    ],
)
def test_a_usage_error_is_one_line(in_samples, call, line):
    assert_refused(call, in_samples, line)


def test_an_attack_set_by_text_gets_the_threat_model_of_the_recipe(in_empty, call):
    """An attack has a default ball, which must not be what training uses."""
    line = f"train pgd-at {TINY} --eps 0.1 --set 'inner=PGD(steps=2)' --out mine"
    outcome = call(line)
    if outcome.status == 0:
        recipe = Run.open("mine").config["recipe"]
        assert recipe["method"]["inner"]["steps"] == 2
        assert recipe["method"]["inner"]["ball"] == recipe["ball"] == {"is": "Linf", "eps": 0.1}
    else:
        assert outcome.status == 2 and "ball" in outcome.err


def test_evaluate_takes_the_gpu_if_there_is_one(in_samples, call, monkeypatch):
    """Its help says: by default cuda if any."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    named = device.get_device
    monkeypatch.setattr(
        device, "get_device", lambda name: asked.append(str(named(name))) or named(name)
    )
    monkeypatch.setattr(nn.Module, "to", lambda model, *device, **layout: model)
    assert call("evaluate run --attack fgsm --samples 10").status == 0
    assert asked[-1].startswith("cuda")
    assert call("evaluate run --attack fgsm --samples 10 --device cpu").status == 0
    assert asked[-1] == "cpu"
