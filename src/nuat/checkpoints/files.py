"""Weights and what is written beside them, from a run folder, another folder or a file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights
from nuat.errors import InputError

WEIGHTS = "model.safetensors"


def run_in(path: Path) -> Run | None:
    """The run in a folder; None for a file, or for a folder with weights alone.

    Raises InputError for any other folder.
    """
    if not path.is_dir() or (_is_taken_away(path)):
        return None
    return Run.open(path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of a run, or in a folder or file, and the text beside them."""
    if path.is_dir():
        if (run := run_in(path)) is not None and not run.has_weights:
            raise InputError(f"{path} has no {WEIGHTS} yet: train an epoch first")
        path = path / WEIGHTS
    if not path.exists():
        raise InputError(f"there is no weights file {path}, nor a run folder of this name")
    return read_weights(path)


def _is_taken_away(path: Path) -> bool:
    return (path / WEIGHTS).exists() and not (path / "config.json").exists()
