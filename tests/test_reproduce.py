"""Reproducing a table: the published figures, and what table.md and table.json say."""

import json
from pathlib import Path

import pytest
import torch

import nuat
from nuat.config.serialization import to_dict
from nuat.data import as_splits
from nuat.evaluation.intervals import wilson
from nuat.recipes import get_recipe
from nuat.recipes.published import find_table
from nuat.report.reproduction import _attack_steps
from nuat.reproduce import reproduce

TABLES = ("cifar10-resnet18", "cifar10-wrn", "imagenet100", "mnist")


@pytest.mark.parametrize("name", TABLES)
def test_every_published_row_is_a_recipe_with_all_figures(name):
    table = find_table(name)
    assert set(table.rows) <= set(table.recipes)
    ball = get_recipe(table.rows[0], table.data).ball
    for attack in table.attacks:
        assert nuat.parse_attack(attack, ball).ball == ball
    for _, accuracy in table.published.values():
        figures = [accuracy[attack] for attack in ("clean", *table.attacks)]
        assert len(accuracy) == len(figures) and min(figures) >= 0 and figures[0] < 100
        assert figures == sorted(figures, reverse=True) or name == "imagenet100"


@pytest.mark.parametrize("name", TABLES)
def test_the_recipes_take_the_published_number_of_attack_steps(name):
    table = find_table(name)
    for row, (steps, _) in table.published.items():
        recipe = get_recipe(row, table.data)
        if steps and "-h-" not in row:
            assert _attack_steps(to_dict(recipe.method)) == steps.partition(" ")[0], row
        if "(" in steps and "+" not in steps:
            assert f"({recipe.epochs})" in steps


def test_published_figures():
    """A few figures of each table, read from the paper once more."""
    wrn = find_table("cifar10-wrn").published["nuat2-wa-wrn"]
    assert wrn == (
        "2 (80)",
        {"clean": 86.32, "pgd-100": 57.74, "gama-100": 55.08, "autoattack": 54.76},
    )
    assert find_table("cifar10-resnet18").published["nuat-wa"][1]["autoattack-v1"] == 50.75
    assert find_table("mnist").published["nuat"][1]["autoattack-v1"] == 93.11
    assert find_table("imagenet100").published["gat"][1]["pgd-500"] == 37.46


def test_a_table_of_a_data_set_has_all_its_recipes():
    table = find_table("digits")
    assert not table.published and {"normal", "nuat-wa", "awp"} <= set(table.rows)
    assert "normal" not in find_table("cifar10-wrn").recipes


@pytest.fixture
def small_mnist(monkeypatch):
    """`mnist(train=20)` of random images, and a tiny network in the place of mnist's."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        return torch.rand(count, 1, 28, 28, generator=generator), torch.arange(count) % 10

    splits = as_splits({"train": split(20), "val": split(10), "test": split(20)}, "mnist(train=20)")
    monkeypatch.setattr("nuat.reproduce.load_dataset", lambda text: splits)
    monkeypatch.setattr(
        "nuat.reproduce.get_recipe",
        lambda *names: get_recipe(*names).with_override("model", "small-cnn(width=2)"),
    )
    return "mnist(train=20)"


def test_a_published_table(small_mnist, tmp_path):
    options = {
        "epochs_scale": 0.02,
        "samples": 10,
        "attacks": ["gama-100", "fgsm"],
        "overrides": {"batch_size": "10"},
        "search_precision": "bf16",
    }
    runs = reproduce(
        "mnist", tmp_path, rows=["fbf", "normal"], data=small_mnist, seeds=2, command="the command",
        **options,
    )  # fmt: skip
    assert [run.path.name for run in runs] == ["fbf-0", "fbf-1", "normal-0", "normal-1"]
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["missing_runs"] == 0 and content["format_version"] == 1
    fbf, normal = content["rows"]
    assert (fbf["name"], fbf["seeds"], fbf["images"]) == ("fbf", [0, 1], 10)
    assert (fbf["attack_steps"], normal["attack_steps"], fbf["peak_mib"]) == ("1", "0", None)

    scores = [run.scores["test"] for run in runs[:2]]
    clean = fbf["accuracy"]["clean"]
    share = sum(each["clean_accuracy"] for each in scores) / 2
    assert clean["mean"] == pytest.approx(100 * share)
    assert clean["difference"] == pytest.approx(100 * share - 99.30)
    low, high = wilson(round(10 * share), 10)
    assert clean["wilson_95"] == pytest.approx([100 * low, 100 * high])
    assert fbf["accuracy"]["gama-100"]["published"] == 87.27
    assert fbf["accuracy"]["fgsm"]["published"] is fbf["accuracy"]["fgsm"]["difference"] is None
    counted = runs[2].metrics[0]["forward_equivalents"]
    assert normal["cost_per_step"] == counted < fbf["cost_per_step"]
    assert fbf["cost_per_run"] == pytest.approx(fbf["cost_per_step"] / 3)

    text = (tmp_path / "table.md").read_text()
    for line in (
        "the command",
        "* Epochs, with the schedules rescaled: fbf 1 of 50, normal 1 of 50.",
        "* Settings of every recipe: batch_size=10.",
        "* Attacks: they searched in bf16; every adversarial example was verified in float32.",
        "* Test images: 10 of 20 were attacked.",
        "* Attacks: the published table also has pgd-500, autoattack-v1, which were not run.",
        "20 training, 10 validation and 20 test images.",
        "| row | clean | gama-100 | fgsm |",
        "fbf-0/, fbf-1/",
    ):
        assert line in text
    assert "Unfinished" not in text and "Seeds: one" not in text


def test_the_time_is_that_of_the_whole_table_and_a_finished_table_is_kept(
    call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    line = "reproduce digits --rows normal,fgsm-at --epochs-scale 0.025 --attack fgsm --samples 20"
    stopped = call(f"{line} --max-time 0s")
    assert stopped.status == 75 and "--max-time, 0 s" in stopped.err
    assert call(line.replace("normal,fgsm-at", "normal")).status == 0
    before = Path("runs/digits/table.md").read_text()
    assert "no figures are published" in before and "published AT steps" not in before
    stopped = call(f"{line} --max-time 0s")
    assert stopped.status == 75 and Path("runs/digits/table.md").read_text() == before
    assert call(line).status == 0
    assert "| fgsm-at |" in Path("runs/digits/table.md").read_text()


def test_a_table_is_written_after_each_run(small_mnist, tmp_path, monkeypatch):
    fit, texts = nuat.fit, []

    def observe(recipe, **options):
        table = tmp_path / "table.md"
        texts.append(table.read_text() if table.exists() else None)
        return fit(recipe, **options)

    monkeypatch.setattr("nuat.reproduce.fit", observe)
    reproduce("mnist", tmp_path, rows=["normal"], seeds=2, attacks=["fgsm"], epochs_scale=0.02)
    assert texts[0] is None and "Unfinished: 1 of the runs are still to be done." in texts[1]
