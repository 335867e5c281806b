"""Evaluations of the same images are merged; the others are listed below the table."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

import nuat
from nuat.attacks import MM
from nuat.attacks.quick import UPPER_BOUND
from nuat.checkpoints.run import Run
from nuat.config.serialization import to_dict
from nuat.data import load_dataset
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult
from nuat.nn.fingerprint import fingerprint
from nuat.report import EvaluationFolder, Row, build_rows, footnotes, render_table, write_page
from nuat.report.evaluations import merge
from nuat.report.summary import list_facts
from nuat.report.table import best_rows, build_columns, shared_settings
from tests.command_line import TINY
from tests.report.test_report import Page, text

OWN = nn.Identity()
RIGHT, STRONG = [True, True, True, False], [True, False, False, False]


def scores(standing: dict[str, list[bool]], **changes) -> EvaluationResult:
    """Return a result for four images, of which the last is misclassified."""
    made = EvaluationResult(
        indices=[0, 1, 2, 3],
        labels=[0, 1, 0, 1],
        predicted=[0, 1, 0, 0],
        robust=standing,
        seconds={},
        ball="Linf(0.2)",
        attacks={name: {"is": name} for name in standing},
        seed=0,
        model_fingerprint=fingerprint(OWN),
        versions={},
        metadata={"data": "digits", "split": "test"},
    )
    return dataclasses.replace(made, **changes)


def larger(found: EvaluationResult, times: int = 2) -> EvaluationResult:
    standing = {name: times * stood for name, stood in found.robust.items()}
    return dataclasses.replace(
        found,
        indices=list(range(4 * times)),
        labels=times * found.labels,
        predicted=times * found.predicted,
        robust=standing,
    )


def run(folder: Path, **found: EvaluationResult) -> Run:
    """A run that was not trained, with these scores; `_` is a dash in their names."""
    recipe = nuat.get_recipe("normal", "digits").with_threat_model(nuat.Linf(0.2))
    data = {"name": "digits", "classes": list("0123456789"), "train": 1, "val": 1, "test": 1}
    made = Run.start(
        folder,
        {
            "recipe": nuat.config.serialization.to_dict(recipe),
            "data": data,
            "model": "small-cnn",
            "parameters": 1,
            "seed": 0,
            "versions": {},
        },
    )
    for name, each in found.items():
        made.save_scores(name.replace("_", "-"), each.to_dict())
    return made


def test_evaluations_of_the_same_images_are_one_row(tmp_path):
    weak, strong = [False, True, True, False], [True, True, False, False]
    made = run(
        tmp_path / "run",
        test=scores({"pgd-20": weak}),
        test_autoattack=scores({"autoattack": strong}),
    )
    (row,) = build_rows([made])
    assert row.robust_accuracy == {"pgd-20": 0.5, "autoattack": 0.5}
    assert row.worst_case_accuracy == 0.25, "only the image that stands in both"
    assert (row.clean_accuracy, row.images, row.split, row.not_shown) == (0.75, 4, "test", [])


def test_images_in_another_order_are_the_same_images(tmp_path):
    turned = scores(
        {"fgsm": [False, False, False, True]}, indices=[3, 2, 1, 0], labels=[1, 0, 1, 0]
    )
    turned = dataclasses.replace(turned, predicted=[0, 0, 1, 0])
    made = run(tmp_path / "run", test=scores({"pgd-20": STRONG}), test_fgsm=turned)
    (row,) = build_rows([made])
    assert row.robust_accuracy == {"pgd-20": 0.25, "fgsm": 0.25}
    assert (row.clean_accuracy, row.worst_case_accuracy) == (0.75, 0.25), "both are of image 0"


@pytest.mark.parametrize(
    ("changes", "attacks"),
    [
        ({}, {"pgd-20": 0.25}),
        ({"seed": 1}, {"pgd-20": 0.75, "pgd-20 (seed 1)": 0.25}),
        ({"search_precision": "bf16"}, {"pgd-20": 0.75, "pgd-20 (bf16)": 0.25}),
        ({"attacks": {"pgd-20": {"is": "FGSM"}}}, {"pgd-20": 0.75, "pgd-20 (test-x)": 0.25}),
    ],
    ids=["same", "seed", "search", "attack"],
)
def test_an_attack_with_other_settings_has_a_separate_column(tmp_path, changes, attacks):
    made = run(
        tmp_path / "run",
        test=scores({"pgd-20": RIGHT}),
        test_x=scores({"pgd-20": STRONG}, **changes),
    )
    (row,) = build_rows([made])
    assert dict(row.robust_accuracy) == attacks
    assert row.worst_case_accuracy == 0.25


def test_a_snapshot_has_the_settings_of_its_attack(tmp_path):
    standing = {"pgd-20 at 7": RIGHT, "pgd-20": STRONG}
    one, other = (scores(standing, attacks={"pgd-20": {"steps": k}}) for k in (20, 21))
    (row,) = build_rows([run(tmp_path / "run", test=one, test_x=other)])
    assert list(row.robust_accuracy) == [
        "pgd-20 at 7",
        "pgd-20",
        "pgd-20 at 7 (test-x)",
        "pgd-20 (test-x)",
    ]


def test_the_starts_of_the_attacks_are_shown(tmp_path):
    """PGD from the clean image and from a random point are attacks of different strength."""
    standing = {"pgd-20": STRONG, "pgd-20 at 7": RIGHT, "gama": RIGHT, "square": RIGHT}
    bernoulli = {"is": "Bernoulli", "fraction": 1.0, "clamp": False}
    configs = {
        "pgd-20": {"is": "PGD", "start": {"is": "Uniform"}},
        "gama": {"is": "GAMA", "start": bernoulli},
        "square": {"is": "Square"},
    }
    made = run(tmp_path / "run", test=scores(standing, attacks=configs))
    (line,) = footnotes(build_rows([made]))
    assert line == (
        "Starts of the attacks: Bernoulli(fraction=1.0, clamp=False) of gama; "
        "Uniform() of pgd-20, pgd-20 at 7"
    )
    page = Page(write_page([made], tmp_path / "page.html"))
    assert "Uniform() of pgd-20" in page.text


FGSM = scores({"fgsm": RIGHT})


@pytest.mark.parametrize(
    ("shown", "left_out", "said"),
    [
        (FGSM, larger(dataclasses.replace(FGSM, metadata={"split": "train"})), "8 images of train"),
        (FGSM, larger(dataclasses.replace(FGSM, ball="Linf(0.1)")), "Linf(0.1), worst 75.0 %"),
        (larger(FGSM), FGSM, "4 images of test"),
        (FGSM, larger(dataclasses.replace(FGSM, model_fingerprint="older")), "of other weights"),
        (
            FGSM,
            larger(dataclasses.replace(FGSM, metadata={"data": "mnist"})),
            "of other data, mnist",
        ),
        (FGSM, dataclasses.replace(FGSM, labels=[1, 1, 0, 1]), "4 images of test"),
    ],
    ids=["split", "ball", "images", "weights", "data", "labels"],
)
def test_the_other_evaluations_are_listed(tmp_path, shown, left_out, said):
    names = ("test_b", "test_a")
    made = run(tmp_path / "run", **dict(zip(names, (shown, left_out), strict=True)))
    (row,) = build_rows([made], {made.path: OWN})
    assert (row.ball, row.images, row.split) == (shown.ball, len(shown.indices), "test")
    (aside,) = footnotes([row])
    assert aside.startswith("normal: also there, not shown: test-a (") and said in aside
    page = Page(write_page([made], tmp_path / "page.html"))
    assert "not shown: test-" in page.text


def test_scores_of_other_weights_are_not_shown(tmp_path):
    made = run(tmp_path / "run", test=dataclasses.replace(FGSM, model_fingerprint="older"))
    (row,) = build_rows([made], {made.path: OWN})
    assert row.clean_accuracy is None and "of other weights" in row.not_shown[0]
    assert build_rows([made])[0].clean_accuracy == 0.75, (
        "without a model the weights cannot be compared"
    )


def test_equally_many_other_images_are_not_compared(tmp_path):
    others = dataclasses.replace(FGSM, indices=[4, 5, 6, 7])
    one, other = (run(tmp_path / name, test_4=each) for name, each in (("a", FGSM), ("b", others)))
    table = build_rows([one, other])
    assert best_rows(table) == frozenset() and best_rows([table[0], table[0]]) == {0, 1}
    assert not [line for line in shared_settings(table) if "images" in line]
    column = next(each for each in build_columns(table) if each.heading == "images")
    assert column.cells == ["4 images (test)", "4 other images (test)"]


def test_scores_without_a_split_take_it_from_their_name(tmp_path):
    old = dataclasses.replace(FGSM, metadata={}).to_dict()
    made = run(tmp_path / "run", val=larger(FGSM))
    made.save_scores("test-60", old)
    assert build_rows([made])[0].split == "test"
    made.save_scores("val", {"format_version": 1})
    with pytest.raises(InputError, match=r"scores/val.json lacks indices"):
        build_rows([made])


def test_autoattack_after_pgd_on_the_command_line(call, in_empty):
    assert call(f"train normal {TINY} --out run").status == 0
    for line in ("--attack pgd-2", "--attack fgsm", "--split train --attack fgsm", "--samples 50"):
        assert call(f"evaluate run {line} --eps 0.1 --attack rfgsm").status == 0, line
    done = call("report run")
    assert (done.status, done.err) == (0, "")
    head = " ".join(done.out.split())
    assert "pgd-2" in head and "fgsm" in head and "rfgsm" in head
    assert f"{len(load_dataset('digits').test)} images (test)" in head
    assert head.count("also there, not shown: ") == 1
    assert "images of train" in head and "50 images of test" in head
    written = json.loads(Path("run/scores/test-pgd-2-rfgsm-eps-0.1.json").read_text())
    assert written["metadata"] == {"data": "digits", "split": "test", "model": "small-cnn(width=4)"}
    assert EvaluationResult.from_dict(written).metadata == written["metadata"]
    assert text(render_table(build_rows([Run.open("run")])))


def test_numbers_are_not_broken_in_wide_tables():
    names = [f"gama-{k}(restarts=5)" for k in range(12)]
    shares = {name: 0.101 + k / 100 for k, name in enumerate(names)}
    table = [
        Row("a", "a", "digits", model, "Linf(0.2)", "test", 9, 0.5, shares, 0.1, cost=1234.5)
        for model in ("small-cnn", "resnet18-nuat(width=4)")
    ]
    console = Console(width=60, file=io.StringIO(), color_system=None)
    console.print(render_table(table), crop=False)
    shown = console.file.getvalue().split()
    figures = [f"{100 * share:.1f}" for share in shares.values()]
    assert [word for word in shown if word in figures] == 2 * figures
    assert shown.count("1,234.5") == 2


def test_quick_attacks_are_called_upper_bounds_and_8_bits_are_a_fact(tmp_path):
    quick = scores({"mm5": RIGHT, "pgd-20": STRONG}, robust_8bit={"pgd-20": RIGHT})
    quick = dataclasses.replace(quick, attacks={"mm5": to_dict(MM()), "pgd-20": {"is": "PGD"}})
    item = EvaluationFolder(tmp_path, quick)
    (row,) = build_rows([item])
    assert footnotes([row]) == [f"mm5: {UPPER_BOUND}"]
    facts = dict(list_facts(item, row))
    assert facts["robust accuracy in 8 bits"].startswith("pgd-20 75.0 %: ")
    earlier = EvaluationFolder(tmp_path, scores({"pgd-20": STRONG}))
    assert "robust accuracy in 8 bits" not in dict(list_facts(earlier, build_rows([earlier])[0]))


def test_merged_evaluations_keep_their_verdicts_in_8_bits():
    one = scores({"pgd-20": STRONG}, robust_8bit={"pgd-20": RIGHT})
    flipped = scores({"fgsm": RIGHT[::-1]}, robust_8bit={"fgsm": RIGHT[::-1]})
    other = dataclasses.replace(flipped, indices=[3, 2, 1, 0], labels=[1, 0, 1, 0])
    assert merge([("a", one), ("b", other)]).robust_8bit == {"pgd-20": RIGHT, "fgsm": RIGHT}
