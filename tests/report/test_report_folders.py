"""`nuat report` of folders that `nuat evaluate --out` wrote, alone and beside runs."""

import dataclasses
import json
from pathlib import Path

import pytest

from nuat.errors import InputError
from nuat.evaluation import EvaluationResult
from nuat.report import build_rows, open_item, write_page
from nuat.report.table import best_rows, build_columns, shared_settings
from tests.report.test_report import Page, figures
from tests.report.test_report_evaluations import FGSM, run


def folder(path: Path, scores: EvaluationResult = FGSM, **config: object) -> Path:
    """Write an evaluation folder with these scores."""
    path.mkdir(parents=True)
    about = {"model_fingerprint": "own", "attacks": {}, "metadata": scores.metadata} | config
    (path / "config.json").write_text(json.dumps(about))
    (path / "scores.json").write_text(json.dumps(scores.to_dict()))
    return path


def test_an_evaluation_folder_is_a_row_with_its_name(tmp_path):
    (row,) = build_rows([open_item(folder(tmp_path / "verdict"))])
    assert (row.name, row.data, row.split, row.ball) == ("verdict", "digits", "test", "Linf(0.2)")
    assert (row.clean_accuracy, row.worst_case_accuracy, row.robust_accuracy, row.images) == (
        0.75,
        0.75,
        {"fgsm": 0.75},
        4,
    )
    headings = [column.heading for column in build_columns([row])]
    assert headings == ["run", "clean", "fgsm", "worst"], "no column about training"
    assert shared_settings([row]) == ["digits", "Linf(0.2)", "4 images (test)"]


def test_unknown_metadata_is_not_shown(tmp_path):
    found = open_item(folder(tmp_path / "verdict", dataclasses.replace(FGSM, metadata={})))
    (row,) = build_rows([found])
    assert shared_settings([row]) == ["Linf(0.2)", "4 images"]
    assert "<title>verdict</title>" in write_page([found], tmp_path / "page.html").read_text()


def test_folders_of_the_same_name_get_distinct_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [folder(Path(letter) / "verdict") for letter in "ab"]
    table = build_rows([*map(open_item, paths), run(tmp_path / "run", test=FGSM)])
    assert [row.name for row in table] == ["a/verdict", "b/verdict", "normal"]
    assert best_rows(table) == {0, 1, 2}, "the same images, ball and attacks"
    both = [run(tmp_path / "run"), open_item(folder(tmp_path / "normal"))]
    assert len({row.group for row in build_rows(both)}) == 2


def test_a_page_with_a_run_and_an_evaluation(tmp_path):
    verdict = open_item(folder(tmp_path / "verdict", dataclasses.replace(FGSM, notes=["a <note>"])))
    trained = run(tmp_path / "run", test=FGSM)
    trained.log({"epoch": 1, "loss": 1.0, "seconds": 1.0, "val_clean": 0.5})
    both = Page(write_page([verdict, trained], tmp_path / "both.html"))
    alone = Page(write_page([verdict], tmp_path / "alone.html"))
    assert [line[0][:7] for line in both.table[1:]] == ["verdict", "normal1"]
    assert "1 run and 1 evaluation on digits" in both.text and "verdict on digits" in alone.text
    assert len(figures(both)) > len(figures(alone)) == 1
    for page in (both, alone):
        assert "a <note>" in page.text and "pgd" not in page.text.partition("Recipe")[0]
    assert "Recipe" not in alone.text and "training step" not in alone.text
    dots = [value for value in both.values("style") if "background" in value]
    assert len(set(dots)) == 2
    assert dots[1].partition(":")[2].lower() in figures(both)[0].lower()


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("scores.json", "is not finished: run the same nuat evaluate command again to resume it"),
        ("config.json", "is not a run folder or an evaluation folder: it has no config.json"),
    ],
)
def test_a_folder_without_a_file_is_refused(tmp_path, lost, words):
    path = folder(tmp_path / "verdict")
    (path / lost).unlink()
    with pytest.raises(InputError, match=words):
        open_item(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is damaged"), ("{}", "is damaged"), ('{"format_version": 0}', "evaluate again")],
)
def test_damaged_scores_are_refused(tmp_path, content, words):
    path = folder(tmp_path / "verdict")
    (path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=words):
        open_item(path)


def test_the_error_names_the_likely_path(tmp_path):
    path = folder(tmp_path / "all" / "verdict")
    with pytest.raises(InputError, match=f"such as {path}"):
        open_item(tmp_path / "all")
    with pytest.raises(InputError, match=f"name the folder, {path}$"):
        open_item(path / "scores.json")
    with pytest.raises(InputError, match="it does not exist"):
        open_item(tmp_path / "none")


def test_an_earlier_report_among_the_folders_is_ignored(call, in_samples, tmp_path):
    paths = [folder(tmp_path / "runs" / name) for name in ("one", "other")]
    page = tmp_path / "runs" / "report.html"
    page.write_text("what an earlier report wrote")
    assert call(f"report {paths[0]} {paths[1]} {page} --out {tmp_path / 'page.html'}").status == 0
    alone = call(f"report {page}")
    assert alone.status == 2 and "it is a file" in alone.err


def test_report_of_an_evaluation_only(call, in_samples, tmp_path):
    known = "--model 'small-cnn(width=4)' --data digits --eps 0.1 --samples 40"
    line = f"evaluate weights.pt {known} --attack fgsm --attack pgd-2 --out {tmp_path}/verdict"
    assert call(line).status == 0
    done = call(f"report {tmp_path}/verdict")
    assert (done.status, done.err) == (0, "")
    shown = " ".join(done.out.split())
    assert (
        "verdict" in shown and "digits · small-cnn(width=4) · Linf(0.1) · 40 images (test)" in shown
    )
    scores = open_item(tmp_path / "verdict").scores
    for share in (
        scores.clean_accuracy,
        scores.robust_accuracy("fgsm"),
        scores.robust_accuracy("pgd-2"),
        scores.worst_case_accuracy,
    ):
        assert f"{100 * share:.1f}" in shown
    assert (tmp_path / "verdict" / "report.html").exists()
    beside = call(f"report run {tmp_path}/verdict --out {tmp_path}/page.html")
    assert (beside.status, beside.err) == (0, "") and "verdict" in beside.out
    assert call(line).status == 0, "a page in the folder is not in the way of a resume"
