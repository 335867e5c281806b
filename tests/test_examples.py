"""The examples work as they and docs/own.md describe."""

import ast
import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import nuat
import nuat.checkpoints.pretrained
from nuat import cli
from nuat.attacks import attack_registry
from nuat.checkpoints.run import Run
from nuat.data import dataset_registry
from nuat.recipes import registry

EXAMPLES = Path(__file__).parents[1] / "examples"
OWN_METHOD = EXAMPLES / "own_method.py"


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a nuat command; what an example registers is removed afterwards."""
    monkeypatch.setattr(registry, "_table", dict(registry._table))
    registries = (attack_registry, dataset_registry)
    known = [set(names) for names in registries]

    def run(line):
        before = dict(registry._table)
        monkeypatch.setattr(sys, "argv", ["nuat", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        monkeypatch.setattr(registry, "_table", before)
        return int(end.value.code or 0), *capsys.readouterr()

    yield run
    for names, before in zip(registries, known, strict=True):
        for name in set(names) - before:
            del names[name]


def test_own_method_is_trained_and_evaluated_by_name(call, tmp_path):
    out = tmp_path / "half-half"
    line = f"train half-half --epochs 1 --out {out}"
    status, _, err = call(line)
    assert status == 2 and "unknown recipe 'half-half'" in err
    assert not out.exists()

    status, _, err = call(f"{line} --import {OWN_METHOD}")
    assert (status, err) == (0, "")
    config = Run.open(out).config
    assert config["recipe"]["method"]["is"] == "HalfHalf"
    lines = Run.open(out).metrics
    assert lines[0]["forward_equivalents"] == pytest.approx(8, abs=0.5)  # FGSM 2, two passes of 3
    assert [line["epoch"] for line in lines] == [1] and 0 < lines[0]["loss"] < 3

    status, _, err = call(f"evaluate {out} --attack fgsm --samples 50")
    assert (status, err) == (0, ""), "evaluating needs the network alone, not the method"
    scores = json.loads((out / "scores" / "test-50-fgsm.json").read_text())
    assert scores["num_images"] == 50
    assert scores["clean_accuracy"] > 0.3


def test_own_method_resumes_and_refuses_a_changed_setting(call, tmp_path):
    out = tmp_path / "run"
    line = (
        f"train half-half --import {OWN_METHOD} --epochs 1 --model 'small-cnn(width=4)' --out {out}"
    )
    assert call(f"{line} --max-time 0")[0] == 75
    assert not Run.open(out).finished
    status, _, err = call(f"{line} --set inner=RFGSM()")
    assert status == 2 and "recipe.method.inner.is: RFGSM here, FGSM there" in err
    assert call(line)[0] == 0
    assert Run.open(out).finished


def test_own_method_trains_against_the_threat_model_of_its_recipe(call):
    """Validation and evaluation use the threat model of the method."""
    runpy.run_path(str(OWN_METHOD))
    row = nuat.get_recipe("half-half", "digits")
    assert row.method.threat_model == row.ball


def test_own_method_takes_less_than_twenty_lines():
    text = OWN_METHOD.read_text()
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                docstrings |= set(range(first.lineno, first.end_lineno + 1))
    lines = [
        line
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in docstrings
    ]
    assert any(line.startswith("register_recipe(") for line in lines)
    assert any(line.startswith("class ") for line in lines)
    assert len(lines) < 20


def test_own_loop_trains_a_network_that_is_robust(capsys):
    """Run two epochs and a short attack."""
    text = (EXAMPLES / "own_loop.py").read_text()
    for long, short in (("EPOCHS = 15", "EPOCHS = 2"), ('["pgd-20", "gama-100"]', '["pgd-5"]')):
        assert text.count(long) == 1
        text = text.replace(long, short)
    space = {"__name__": "__main__"}
    exec(compile(text, "own_loop.py", "exec"), space)
    scores, out = space["scores"], capsys.readouterr().out
    assert out == f"clean {scores.clean_accuracy:.1%}, robust {scores.worst_case_accuracy:.1%}\n"
    assert scores.clean_accuracy > 0.7
    assert scores.worst_case_accuracy > 0.1
    assert isinstance(space["method"], nuat.NuAT) and space["method"].lam.epochs == 1.8


def test_the_readme_and_the_docs_show_the_loop_of_the_example():
    """These snippets are copied by users."""
    root = EXAMPLES.parent
    loop = ["optimizer.zero_grad()", "loss.backward()", "optimizer.step()"]
    for file in (root / "README.md", root / "docs" / "own.md", EXAMPLES / "own_loop.py"):
        lines = [line.strip() for line in file.read_text().splitlines()]
        place = next(i for i, line in enumerate(lines) if line.startswith("for loss in method"))
        assert lines[place + 1 : place + 4] == loop, file


def run_example(name, tmp_path, monkeypatch, capsys, **short):
    """Run an example with other constants, in an empty folder; return its names and its output."""
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / name).read_text()
    for constant, value in short.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{constant} = ")]
        text = text.replace(line, f"{constant} = {value}")
    space = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    return space, capsys.readouterr().out


def test_own_network_becomes_more_robust(tmp_path, monkeypatch, capsys):
    space, out = run_example("own_network.py", tmp_path, monkeypatch, capsys, EPOCHS=3)
    assert space["after"].worst_case_accuracy > space["before"].worst_case_accuracy
    assert " before, " in out


def test_fine_tuning_makes_a_network_robust(tmp_path, monkeypatch, capsys):
    _, out = run_example("fine_tuning.py", tmp_path, monkeypatch, capsys, EPOCHS=2)
    before, after = [line for line in out.splitlines() if line.startswith("clean ")]
    robust = [float(line.partition("robust ")[2].partition("%")[0]) for line in (before, after)]
    assert robust[1] > robust[0] + 20


def test_foreign_checkpoint_is_attacked(tmp_path, monkeypatch, capsys):
    space, _ = run_example("foreign_checkpoint.py", tmp_path, monkeypatch, capsys)
    card = nuat.checkpoints.pretrained.list_pretrained()["nuat:digits/pgd-at"]
    assert 100 * space["scores"].clean_accuracy == pytest.approx(card.accuracy["clean"], abs=0.26)


def test_own_attack_is_run_by_name(call):
    own = f"--import {EXAMPLES / 'own_attack.py'} --attack random-corners-3 --samples 50"
    status, out, err = call(f"evaluate nuat:digits/normal {own}")
    assert (status, err) == (0, "") and "random-corners-3" in out


def test_own_data_are_trained_on_by_name(call, tmp_path):
    own = f"--import {EXAMPLES / 'own_data.py'} --data even-or-odd --out {tmp_path / 'run'}"
    line = f"train normal {own} --epochs 1 --model 'small-cnn(width=4)' --eps 0.15"
    assert call(line)[0] == 0
    assert Run.open(tmp_path / "run").config["data"]["classes"] == ["even", "odd"]
