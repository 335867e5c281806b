"""Intervals and confusion matrices."""

import pytest
import torch

from nuat.evaluation.confusion import confusion_matrix, error_entropy
from nuat.evaluation.intervals import wilson


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (7, 50), (5000, 10000)])
def test_wilson_solves_its_equation(count, total):
    """Its ends are the p with |count/n - p| = z sqrt(p (1 - p) / n)."""
    for end in wilson(count, total):
        miss = abs(count / total - end) - 1.959964 * (end * (1 - end) / total) ** 0.5
        assert abs(miss) < 1e-6


def test_error_entropy_counts_the_wrongly_predicted_classes():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    matrix = confusion_matrix(labels, torch.tensor([0, 1, 1, 0, 1, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 2, 0]]
    assert error_entropy(matrix) == pytest.approx(0.811278, abs=1e-6), "errors go to 1, 0, 1, 1"
    assert error_entropy(torch.ones(8, 8).long()) == pytest.approx(3)
    assert error_entropy(torch.tensor([[0, 5], [0, 5]])) == 0
