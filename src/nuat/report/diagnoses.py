"""The stored diagnoses of runs: whether their robust accuracies are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from nuat.diagnosis.result import FILE_NAME, Diagnosis
from nuat.errors import InputError
from nuat.nn.fingerprint import fingerprint
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.report.rows import Row


def stored_diagnoses(
    items: Sequence[ReportItem], rows: Sequence[Row], models: Mapping[Path, nn.Module]
) -> tuple[list[tuple[str, Diagnosis]], list[str]]:
    """Return the diagnosis of each run that has one, by name, and what cannot be shown.

    The file is written by `nuat diagnose RUN`. That of other weights than the model's is not shown.
    """
    found, missing = [], []
    for item, row in zip(items, rows, strict=True):
        file = item.path / FILE_NAME
        if isinstance(item, EvaluationFolder) or not file.exists():
            continue
        try:
            diagnosis = Diagnosis.read(file)
        except InputError as error:
            missing.append(f"the diagnosis of {row.name} cannot be read: {error}")
            continue
        model = models.get(item.path.resolve())
        if model is not None and fingerprint(model) != diagnosis.model_fingerprint:
            missing.append(f"the diagnosis of {row.name} is of other weights: diagnose again")
            continue
        found.append((row.name, diagnosis))
    return found, missing
