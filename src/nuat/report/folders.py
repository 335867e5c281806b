"""The folders that a report reads: run folders and the folders of `nuat evaluate --out`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuat.checkpoints.fields import ONLY_WITH_INIT, RUN_CONFIG, check_fields, parse_json
from nuat.checkpoints.run import Run
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult
from nuat.runtime.files import read_text


@dataclass(frozen=True)
class EvaluationFolder:
    """The folder of one evaluation; the model may have been trained anywhere."""

    path: Path
    scores: EvaluationResult

    @property
    def name(self) -> str:
        return self.path.resolve().name


ReportItem = Run | EvaluationFolder
"""What has a row in a report."""


def open_item(path: Path | str) -> ReportItem:
    """Open a run folder or an evaluation folder.

    Raises:
        InputError: the folder holds neither, or its files are damaged or unfinished.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise InputError(f"{path} is not a run folder or an evaluation folder: {_reason(path)}")
    config = _read_json(path / "config.json")
    if {"recipe", "data"} <= config.keys():
        run = Run.open(path)
        check_fields(run.config, RUN_CONFIG, path / "config.json", optional=ONLY_WITH_INIT)
        return run
    if {"model_fingerprint", "attacks"} <= config.keys():
        return EvaluationFolder(path, _read_scores(path))
    raise InputError(f"{path}/config.json describes neither a run nor an evaluation of nuat")


def _read_scores(path: Path) -> EvaluationResult:
    file = path / "scores.json"
    if not file.exists():
        raise InputError(
            f"the evaluation in {path} is not finished: "
            "run the same nuat evaluate command again to resume it"
        )
    if not (scores := _read_json(file)):
        raise InputError(
            f"{file} is damaged: run the same nuat evaluate command again to rewrite it"
        )
    return EvaluationResult.from_dict(scores, file)


def _reason(path: Path) -> str:
    """Say why `path` cannot be opened, and which path was likely meant."""
    if not path.exists():
        return "it does not exist"
    if path.is_file():
        return f"it is a file; name the folder, {path.parent}"
    if inside := sorted(file.parent for file in path.glob("*/config.json")):
        return f"it has no config.json; name a folder inside it, such as {inside[0]}, or {path}/*"
    return "it has no config.json"


def _read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or {} if the file holds anything else."""
    try:
        content = parse_json(read_text(file), file)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
