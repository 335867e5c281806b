"""What a report is about: folders of runs, and folders that `nuat evaluate --out` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuat.checkpoints.run import Run
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult


@dataclass(frozen=True)
class VerdictFolder:
    """An evaluation without a run: of a network that may have been trained anywhere."""

    path: Path
    scores: EvaluationResult

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.path.resolve().name

    @property
    def metrics(self) -> Sequence[dict[str, Any]]:
        """None of training: there was none here."""
        return []


Shown = Run | VerdictFolder
"""What has a row in a report."""


def opened(path: Path | str) -> Shown:
    """The run or the evaluation in a folder. Raises InputError if it holds neither."""
    path = Path(path)
    if not (path / "config.json").exists():
        raise InputError(f"{path} is not a run folder, nor one of nuat evaluate: {_why(path)}")
    config = _read(path / "config.json")
    if {"recipe", "data"} <= config.keys():
        return Run.open(path)
    if {"model_fingerprint", "attacks"} <= config.keys():
        return VerdictFolder(path, _scores(path))
    raise InputError(f"{path}/config.json is that of neither a run nor an evaluation of nuat")


def _scores(path: Path) -> EvaluationResult:
    """The result of an evaluation."""
    file = path / "scores.json"
    if not file.exists():
        raise InputError(
            f"the evaluation in {path} is not finished: the same nuat evaluate goes on with it"
        )
    if not (written := _read(file)):
        raise InputError(f"{file} is damaged: the same nuat evaluate writes it again")
    try:
        return EvaluationResult.from_dict(written)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _why(path: Path) -> str:
    """Why there is nothing to show, and what was likely meant."""
    if not path.exists():
        return "it is not there"
    if path.is_file():
        return f"it is a file; name the folder, {path.parent}"
    if inside := sorted(file.parent for file in path.glob("*/config.json")):
        return f"it has no config.json; name what is in it, such as {inside[0]}, or {path}/*"
    return "it has no config.json"


def _read(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing if it is none."""
    try:
        found = json.loads(file.read_text())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
