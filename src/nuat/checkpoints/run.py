"""A run folder: everything about one training run, safe against a kill at any moment.

config.json            recipe, data, model, seed, versions
metrics.jsonl          one line for each epoch
checkpoint.pt          everything a resume needs; checkpoint.previous.pt, the one before
model.safetensors      the weights to use: the best epoch by robust accuracy on the validation split
last.safetensors       the weights of the last epoch
scores/                evaluations
report.html            the page
"""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nuat.checkpoints.weights_io import read_weights, write_weights
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.runtime.files import atomic_write

ABOUT = ("versions", "forward_equivalents", "init_from", "threads")
"""Parts of config.json that tell about a run and do not define it."""


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.start` makes or goes on with one, `Run.open` reads one."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @staticmethod
    def start(path: Path | str, config: dict[str, Any]) -> Run:
        """Make the folder, or go on with it if it holds this very run.

        What only describes it, such as the versions, may differ. Raises InputError if the folder
        contains anything else.
        """
        run = Run(Path(path))
        if run._config_file.exists():
            found = diff(_comparable(config), _comparable(run.config))
            if found:
                raise InputError(
                    f"{run.path} holds another run; it differs in {'; '.join(found)}. "
                    "Choose another folder with --out, or delete this one"
                )
            return run
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise InputError(f"{run.path} is not empty and not a run; choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        atomic_write(
            run._config_file, lambda file: file.write_text(json.dumps(config, indent=2) + "\n")
        )
        return run

    @staticmethod
    def open(path: Path | str) -> Run:
        """The run in an existing folder. Raises InputError if there is none."""
        run = Run(Path(path))
        if not run._config_file.exists():
            inside = any(run.path.glob("*/config.json"))
            hint = f"; the runs in it are {run.path}/*" if inside else ""
            raise InputError(f"{path} is not a run folder: it has no config.json{hint}")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        try:
            config: dict[str, Any] = json.loads(self._config_file.read_text())
            config["recipe"], config["data"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self._config_file} is not that of a run of nuat: choose another folder"
            ) from None
        return config

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
        if not self._metrics_file.exists():
            return []
        lines = self._metrics_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The evaluations in scores/, by file name without its ending."""
        files = sorted((self.path / "scores").glob("*.json"))
        return {file.stem: json.loads(file.read_text()) for file in files}

    def log(self, metrics: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self._metrics_file.open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def forget_after(self, epochs: int) -> None:
        """Drop the lines of metrics.jsonl that a resume after so many epochs will write again."""
        kept = [line for line in self.metrics if line["epoch"] <= epochs]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if self._metrics_file.exists():
            atomic_write(self._metrics_file, lambda file: file.write_text(text))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt, keeping the one before."""
        self.save_state("checkpoint.fresh", state)
        fresh = self.path / "checkpoint.fresh.pt"
        if self._checkpoint_file.exists():
            os.replace(self._checkpoint_file, self.path / "checkpoint.previous.pt")
        os.replace(fresh, self._checkpoint_file)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The newest checkpoint that is there, None if there is none."""
        names = ("checkpoint.fresh", "checkpoint", "checkpoint.previous")
        there = (self.load_state(name, device) for name in names)
        return next((state for state in there if state is not None), None)

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Write NAME.pt."""
        atomic_write(self.path / f"{name}.pt", lambda file: torch.save(state, file))

    def load_state(self, name: str, device: torch.device) -> dict[str, Any] | None:
        """What NAME.pt holds, None if it is not there."""
        file = self.path / f"{name}.pt"
        if not file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{file} is damaged: {error}. Delete it to go on from what was saved before it"
            ) from None
        return state

    def save_weights(self, name: str, weights: dict[str, Tensor], about: dict[str, str]) -> None:
        """Write NAME.safetensors with text beside the weights."""
        write_weights(self.path / f"{name}.safetensors", weights, about)

    def save_scores(self, name: str, scores: dict[str, Any]) -> Path:
        """Write scores/NAME.json."""
        target = self.path / "scores" / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda file: file.write_text(json.dumps(scores) + "\n"))
        return target

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the run was stopped by its guard."""
        epochs: int = self.config["recipe"]["epochs"]
        last = (self.metrics or [{"epoch": 0}])[-1]
        return last["epoch"] >= epochs or bool(last.get("stopped"))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return self._checkpoint_file.exists()

    @property
    def has_weights(self) -> bool:
        """Whether an epoch was finished, so that there is a model.safetensors."""
        return (self.path / "model.safetensors").exists()

    def weights(self) -> dict[str, Tensor]:
        """What model.safetensors holds. Raises InputError if training has not got that far."""
        if not self.has_weights:
            raise InputError(f"{self.path} has no model.safetensors yet: train an epoch first")
        return read_weights(self.path / "model.safetensors")[0]

    @property
    def _config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def _checkpoint_file(self) -> Path:
        return self.path / "checkpoint.pt"


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return {key: value for key, value in plain.items() if key not in ABOUT}
