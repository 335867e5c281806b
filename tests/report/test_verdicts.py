"""What the page says about the verdicts: sentences, falls, classes and paired tests."""

from math import comb

import pytest

from nuat.evaluation import EvaluationResult
from nuat.evaluation.intervals import wilson
from nuat.recipes.published import published_accuracies
from nuat.report.rows import Row, _with_accuracies
from nuat.report.verdicts import (
    class_table,
    falls,
    mcnemar,
    paired_tests,
    standing,
    verdict_sentence,
)


def result(robust, labels=(0, 0, 1, 1, 2), predicted=(0, 0, 1, 1, 0)):
    return EvaluationResult(
        indices=list(range(len(labels))),
        labels=list(labels),
        predicted=list(predicted),
        robust=robust,
        seconds={},
        ball="Linf(0.1)",
        attacks=dict.fromkeys(robust),
        seed=0,
        model_fingerprint="",
        versions={},
        parts={},
        metadata={"split": "test"},
    )


WEAK = [True, True, True, False, False]
STRONG = [True, False, True, True, False]


def row(name, **robust):
    empty = Row(name, name, "digits", "net", "Linf(0.1)")
    return _with_accuracies(empty, result(robust)) if robust else empty


def test_the_sentence_has_accuracies_interval_attacks_and_images():
    low, high = wilson(2, 5)
    assert verdict_sentence(row("a", weak=WEAK, strong=STRONG)) == (
        f"clean 80.0 %, robust 40.0 % [{100 * low:.1f}, {100 * high:.1f}] under weak and strong "
        "within Linf(0.1), on 5 images of the test split"
    )
    assert "no evaluation" in verdict_sentence(row("a"))


def test_an_image_falls_once_and_the_counts_add_up():
    found = result({"weak": WEAK, "strong": STRONG})
    assert falls(found) == [("misclassified", 1), ("weak", 1), ("strong", 1), ("standing", 2)]
    assert sum(count for _, count in falls(found)) == 5
    assert sum(standing(found)) / 5 == found.worst_case_accuracy


def test_classes():
    table = class_table([row("a", weak=WEAK), row("b")], [["x", "y", "<z>"], []])
    assert table.classes == ["x", "y", "<z>"] and table.hidden == 0
    assert table.rows == [("a", [1.0, 0.5, 0.0])]
    assert class_table([row("b")], [[]]) is None


def test_of_many_classes_the_least_robust_are_shown():
    labels, robust = list(range(30)), [label >= 15 for label in range(30)]
    many = _with_accuracies(Row("a", "a", "x", "n", "b"), result({"w": robust}, labels, labels))
    table = class_table([many], [[]])
    assert len(table.classes) == 20 and table.hidden == 10
    assert {str(k) for k in range(15)} <= set(table.classes)


def test_mcnemar_is_the_binomial_test():
    stats = pytest.importorskip("scipy.stats")
    for b, c in ((0, 0), (1, 0), (3, 9), (10, 10), (0, 40), (120, 80)):
        n = b + c
        expected = stats.binomtest(b, n, 0.5).pvalue if n else 1.0
        assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(0, 5) == 2 * comb(5, 0) / 32


def test_pairs_are_of_the_same_images_and_attacks():
    a, b, c = row("a", weak=WEAK), row("b", weak=STRONG), row("c", other=WEAK)
    (test,) = paired_tests([a, b, c, row("d")])
    assert (test.first, test.second) == ("a", "b")
    assert (test.only_first, test.only_second, test.p) == (1, 1, 1.0)


def test_published_figures_of_a_row():
    assert published_accuracies("mnist(val=500)", "nuat")["gama-100"] == 94.65
    assert published_accuracies("cifar10", "nuat2-wrn")["autoattack"] == 51.27
    assert published_accuracies("digits", "nuat") == published_accuracies("mnist", "x") == {}
