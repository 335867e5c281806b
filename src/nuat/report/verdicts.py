"""What the verdicts on the single images tell: which attack breaks them, which classes, and pairs.

Everything is computed from the verdicts of `EvaluationResult`, so that it needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from nuat.evaluation import EvaluationResult
from nuat.evaluation.intervals import wilson
from nuat.report.rows import Row
from nuat.runtime.text import escape_unprintable


def verdict_sentence(row: Row) -> str:
    """One sentence on a run: its accuracies with the interval, or what is missing.

    `clean 98.6 %, robust 93.1 % [92.6, 93.6] under pgd-20 and gama-100 within Linf(0.3), on 10,000
    images of the test split`. The interval is Wilson's, of 95 %.
    """
    result = row.result
    if result is None:
        return "it has no evaluation; nuat evaluate makes one"
    images = len(result.indices)
    text = f"clean {100 * result.clean_accuracy:.1f} %"
    if result.robust:
        low, high = wilson(sum(standing(result)), images)
        text += (
            f", robust {100 * result.worst_case_accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            f" under {_join(list(result.attacks))} within {result.ball}"
        )
    split = f" of the {row.split} split" if row.split else ""
    return escape_unprintable(f"{text}, on {images:,} images{split}")


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def standing(result: EvaluationResult) -> list[bool]:
    """Whether each image is classified correctly and withstands every attack."""
    return [all(verdicts) for verdicts in zip(*result.robust.values(), strict=True)]


def falls(result: EvaluationResult) -> list[tuple[str, int]]:
    """How many images fall to what, in the order of the attacks; the counts add up to all images.

    An image counts where it falls first: misclassified without an attack, then broken by the first
    attack, and so on; the last entry is "standing".
    """
    correct = [a == b for a, b in zip(result.labels, result.predicted, strict=True)]
    counts = [("misclassified", correct.count(False))]
    alive = correct
    for name in result.attacks:
        after = [a and b for a, b in zip(alive, result.robust[name], strict=True)]
        counts.append((name, sum(alive) - sum(after)))
        alive = after
    return [*counts, ("standing", sum(alive))]


def class_accuracies(result: EvaluationResult) -> dict[int, float]:
    """The worst-case robust accuracy of each class that has images, between 0 and 1."""
    verdicts: dict[int, list[bool]] = {}
    for label, stands in zip(result.labels, standing(result), strict=True):
        verdicts.setdefault(label, []).append(stands)
    return {label: sum(values) / len(values) for label, values in sorted(verdicts.items())}


MAX_CLASSES = 20
"""With more classes than this the table shows those that are least robust on average."""


@dataclass(frozen=True)
class ClassTable:
    """Robust accuracies by class, of the rows that have an evaluation.

    Attributes:
        classes: the names of the classes.
        rows: the name of each row, and for each class the share in [0, 1], or None without images.
        hidden: how many more classes there are.
    """

    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]
    hidden: int


def class_table(rows: Sequence[Row], names: Sequence[Sequence[str]]) -> ClassTable | None:
    """The robust accuracies by class; None if the rows have no evaluation or different data.

    `names` has the class names of each row, () where they are unknown.
    """
    found = [(row.name, class_accuracies(row.result)) for row in rows if row.result]
    if not found or len({row.data for row in rows if row.result}) > 1:
        return None
    labels = sorted({label for _, shares in found for label in shares})
    known = next((each for each in names if each), ())
    shown = labels
    if len(labels) > MAX_CLASSES:
        by_mean = sorted(labels, key=lambda label: sum(s.get(label, 0.0) for _, s in found))
        shown = sorted(by_mean[:MAX_CLASSES])
    return ClassTable(
        [escape_unprintable(known[k]) if k < len(known) else str(k) for k in shown],
        [(name, [shares.get(label) for label in shown]) for name, shares in found],
        len(labels) - len(shown),
    )


@dataclass(frozen=True)
class PairedTest:
    """Two rows on the same images under the same attacks.

    Attributes:
        first, second: the names of the rows.
        only_first, only_second: the number of images that withstand all attacks in one row alone.
        p: the p-value of McNemar's exact test.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test.

    If neither network is better, each image on which they differ falls to either with probability
    1/2:  p = min(1, 2 sum_{i <= min(b, c)} C(b + c, i) / 2^(b + c)),  b and c the two counts.
    Source: McNemar, Psychometrika 12, 1947, with the binomial distribution in place of its
    approximation.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)


def paired_tests(rows: Sequence[Row]) -> list[PairedTest]:
    """The test of every two rows that are comparable: equal data, ball, images and attacks."""
    tests = []
    for a, b in combinations(rows, 2):
        if not a.robust_accuracy or a.comparison_key != b.comparison_key:
            continue
        assert a.result is not None and b.result is not None
        others = dict(zip(b.result.indices, standing(b.result), strict=True))
        pairs = [
            (stands, others[index])
            for index, stands in zip(a.result.indices, standing(a.result), strict=True)
        ]
        only_a = sum(one and not other for one, other in pairs)
        only_b = sum(other and not one for one, other in pairs)
        tests.append(PairedTest(a.name, b.name, only_a, only_b, mcnemar(only_a, only_b)))
    return tests
