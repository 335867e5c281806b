"""A run folder: all files of one training run, consistent if the process is killed at any moment.

config.json            recipe, data, model, seed, versions
metrics.jsonl          one line per epoch
checkpoint.pt          all that a resume needs; checkpoint.previous.pt is the one before it
model.safetensors      the weights of the epoch with the best robust validation accuracy
last.safetensors       the weights of the last epoch
scores/                evaluations
report.html            the report

docs/file_formats.md lists the fields of each file. Each has a checksum, so that a changed byte is
noticed. The checkpoint also holds the config and the metrics: if their files are lost or damaged,
the command that resumes the run writes them again.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nuat.checkpoints.fields import RUN_CONFIG, check_fields, check_metrics, parse_json
from nuat.checkpoints.format_version import FORMAT_VERSION, check_format_version
from nuat.checkpoints.pretrained import is_pretrained, pretrained_weights
from nuat.checkpoints.weights_io import WEIGHTS_FILE, read_weights, write_weights
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.runtime.checksums import with_checksum, without_checksum
from nuat.runtime.files import (
    atomic_write,
    check_inside,
    check_regular,
    explain_write_errors,
    read_text,
    sync_folder,
)

CHECKPOINT_NAMES = ("checkpoint.fresh", "checkpoint", "checkpoint.previous")
"""Checkpoint files from new to old; `fresh` exists only if the process was killed
during the replacement."""

INFORMATIVE_FIELDS = ("versions", "init_from", "threads")
"""Fields of config.json that describe a run without identifying it."""

INFORMATIVE_RECIPE_FIELDS = ("source", "note", "on_overfitting", "on_nonfinite")
"""Fields of the recipe likewise: a typo mended in a note does not make it another run."""


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.start` creates or resumes one, `Run.open` opens an existing one."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @staticmethod
    def start(path: Path | str, config: dict[str, Any]) -> Run:
        """Create the folder, or resume if it holds a run of the same config.

        Fields such as the versions of the software may differ from those of the stored config. A
        lost or damaged config.json is written again from the checkpoint.

        Raises:
            InputError: the folder holds another run, or other files.
        """
        run = Run(Path(path))
        config = {"format_version": FORMAT_VERSION, **config}
        if run._config_file.exists() or run.has_checkpoint:
            differences = diff(identifying_fields(config), identifying_fields(run._stored_config()))
            if differences:
                raise InputError(
                    f"{run.path} holds another run; it differs in {'; '.join(differences)}. "
                    "Choose another folder with --out, or delete this one"
                )
            return run
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise InputError(f"{run.path} is not empty and not a run; choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        run._write_config(config)
        return run

    def _write_config(self, config: dict[str, Any]) -> None:
        text = json.dumps(with_checksum(config), indent=2) + "\n"
        atomic_write(self._config_file, lambda file: file.write_text(text))

    def _stored_config(self) -> dict[str, Any]:
        """Return the config, and mend its file from the checkpoint if it is lost or damaged."""
        try:
            return self.config
        except InputError as error:
            try:
                state = self.load_checkpoint(torch.device("cpu"))
            except InputError:
                state = None
            if state is None or not isinstance(state.get("config"), dict):
                raise
            warnings.warn(f"{error}; it is written again from the checkpoint", stacklevel=3)
            self._write_config(state["config"])
            return self.config

    @staticmethod
    def open(path: Path | str) -> Run:
        """Return the run in an existing folder. Raises InputError if there is none."""
        run = Run(Path(path))
        if not run._config_file.exists():
            hint = ""
            if run.has_checkpoint:
                hint = "; the nuat train command of the run writes it again"
            elif any(run.path.glob("*/config.json")):
                hint = f"; it contains runs: name one of {run.path}/*"
            raise InputError(f"{path} is not a run folder: it has no config.json{hint}")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The contents of config.json. Raises InputError if nuat did not write it like that."""
        try:
            config: dict[str, Any] = parse_json(read_text(self._config_file), self._config_file)
            config["recipe"], config["data"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self._config_file} is not the config of a nuat run: choose another folder"
            ) from None
        check_format_version(config.get("format_version"), self._config_file)
        config = without_checksum(config, self._config_file)
        check_fields(config, RUN_CONFIG, self._config_file, optional=RUN_CONFIG)
        return config

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without a last line that is incomplete.

        Raises:
            InputError: a line is damaged or is not one that nuat writes.
        """
        if not self._metrics_file.exists():
            return []
        lines = read_text(self._metrics_file).split("\n")[:-1]
        return [self._parse_metrics(line, number) for number, line in enumerate(lines, 1)]

    def _parse_metrics(self, line: str, number: int) -> dict[str, Any]:
        source = f"line {number} of {self._metrics_file}"
        try:
            metrics = parse_json(line, source)
            if not isinstance(metrics, dict):
                raise InputError(f"{source} is no JSON object")
            check_format_version(metrics.get("format_version"), self._metrics_file)
            metrics = without_checksum(metrics, source)
            del metrics["format_version"]
            check_metrics(metrics, source)
        except InputError as error:
            raise InputError(
                f"{error}. The nuat train command of the run writes the file again"
            ) from None
        return metrics

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The evaluations in scores/, by file name without its suffix.

        Raises:
            InputError: a file is damaged.
        """
        files = sorted((self.path / "scores").glob("*.json"))
        return {file.stem: _read_scores(file) for file in files}

    def log(self, metrics: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, and flush it to the disk."""
        check_inside(self._metrics_file, self.path)
        with explain_write_errors(self._metrics_file), self._metrics_file.open("a") as file:
            file.write(_metrics_line(metrics))
            file.flush()
            os.fsync(file.fileno())

    def restore_metrics(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Make metrics.jsonl hold exactly these lines: those of the checkpoint.

        A run that was killed between its metrics and its checkpoint repeats the epochs after that,
        and the file may have lost lines, or have lines of another run.
        """
        text = "".join(map(_metrics_line, metrics))
        before = read_text(self._metrics_file) if self._metrics_file.exists() else ""
        if before != text:
            atomic_write(self._metrics_file, lambda file: file.write_text(text))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt, and keep the previous one as checkpoint.previous.pt."""
        fresh, current, previous = self._checkpoint_files
        self.save_state("checkpoint.fresh", state)
        if current.exists():
            os.replace(current, previous)
        os.replace(fresh, current)
        sync_folder(self.path)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """Return the newest checkpoint that is not damaged, or None if there is none.

        Raises:
            InputError: all checkpoints are damaged.
        """
        damage: list[str] = []
        for name in CHECKPOINT_NAMES:
            try:
                state = self.load_state(name, device)
            except InputError as error:
                damage.append(str(error))
                continue
            if state is not None:
                for reason in damage:
                    warnings.warn(f"{reason}; {name}.pt is used instead", stacklevel=2)
                return state
        if damage:
            raise InputError(
                f"{damage[0]}, and there is no other checkpoint: delete it to train from the start"
            )
        return None

    def drop_newest_checkpoint(self) -> None:
        """Replace the newest checkpoint by the previous one, if there is one."""
        fresh, current, previous = self._checkpoint_files
        fresh.unlink(missing_ok=True)
        if previous.exists():
            os.replace(previous, current)

    def save_state(self, name: str, state: dict[str, Any]) -> None:
        """Write NAME.pt."""
        content = with_checksum({"format_version": FORMAT_VERSION, **state})
        # torch's own writer to a file hides the reason of an error, such as a full disk
        buffer = io.BytesIO()
        torch.save(content, buffer)
        atomic_write(self.path / f"{name}.pt", lambda file: file.write_bytes(buffer.getbuffer()))

    def load_state(self, name: str, device: torch.device) -> dict[str, Any] | None:
        """Return the contents of NAME.pt, or None if there is no such file.

        Raises:
            InputError: the file is damaged.
        """
        file = self.path / f"{name}.pt"
        check_regular(file)
        try:
            state: Any = torch.load(file, map_location=device, weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises errors of any kind for a file that is damaged
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, pickle.UnpicklingError):
                reason = "it is not what nuat writes, or is a pickle with code or objects"
            raise InputError(f"{file} is damaged: {reason}") from None
        if not isinstance(state, dict):
            raise InputError(f"{file} holds a {type(state).__name__}, but must hold a dict")
        check_format_version(state.get("format_version"), file)
        state = without_checksum(state, file)
        del state["format_version"]
        return state

    def save_weights(self, name: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write NAME.safetensors."""
        write_weights(self.path / f"{name}.safetensors", weights, metadata)

    def save_scores(self, name: str, scores: dict[str, Any]) -> Path:
        """Write scores/NAME.json."""
        target = self.path / "scores" / f"{name}.json"
        check_inside(target.parent, self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda file: file.write_text(json.dumps(scores) + "\n"))
        return target

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or catastrophic overfitting has stopped the run."""
        state = self.load_checkpoint(torch.device("cpu"))
        return state is not None and state["finished"] is True

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed from a checkpoint."""
        return any(file.exists() for file in self._checkpoint_files)

    @property
    def has_weights(self) -> bool:
        """Whether model.safetensors exists, which the first epoch writes."""
        return (self.path / WEIGHTS_FILE).exists()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights in model.safetensors. Raises InputError before the first epoch."""
        return read_weights(find_weights(self.path))[0]

    @property
    def _checkpoint_files(self) -> list[Path]:
        return [self.path / f"{name}.pt" for name in CHECKPOINT_NAMES]

    @property
    def _config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"


def find_run(path: Path) -> Run | None:
    """Return the run in the folder `path`, or None for a file and for an exported folder.

    Raises:
        InputError: `path` is any other folder.
    """
    return None if not path.is_dir() or _is_exported(path) else Run.open(path)


def find_weights(path: Path) -> Path:
    """Return the weights file in a run folder or an exported folder, or of `nuat:NAME`.

    A file is returned as it is.

    Raises:
        InputError: there is no such file, or the run has not finished an epoch yet.
    """
    if is_pretrained(path):
        return pretrained_weights(str(path))
    run = find_run(path)
    if run is not None and not run.has_weights:
        last = path / "last.safetensors"
        if last.exists():
            raise InputError(
                f"{path} has lost its {WEIGHTS_FILE}, the weights of its best epoch; {last} holds "
                "those of its last epoch"
            )
        raise InputError(f"{path} has no {WEIGHTS_FILE} yet: train at least one epoch")
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.exists():
        raise InputError(f"there is no weights file {file}, nor a run folder of this name")
    return file


def _is_exported(path: Path) -> bool:
    """Whether a folder holds weights without a run, as `nuat.save_pretrained` writes it."""
    return (path / WEIGHTS_FILE).exists() and not (path / "config.json").exists()


def _read_scores(file: Path) -> dict[str, Any]:
    try:
        scores = parse_json(read_text(file), file)
    except InputError as error:
        raise InputError(f"{error}. Delete it, and evaluate again") from None
    if not isinstance(scores, dict):
        raise InputError(f"{file} holds no JSON object: delete it, and evaluate again")
    return scores


def _metrics_line(metrics: dict[str, Any]) -> str:
    return json.dumps(with_checksum({"format_version": FORMAT_VERSION, **metrics})) + "\n"


def identifying_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a config that identify a run."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    identifying = {key: value for key, value in plain.items() if key not in INFORMATIVE_FIELDS}
    recipe = identifying["recipe"].items()
    identifying["recipe"] = {k: v for k, v in recipe if k not in INFORMATIVE_RECIPE_FIELDS}
    return identifying
