"""What has been done of an evaluation, in an append-only file that survives a kill.

A folder holds:

config.json                       what is evaluated, and how
journal-RANK.jsonl                a line for each batch of each run, as soon as it is done
adversarial-RANK-LINE.safetensors the points that its images fell to, if asked for
verdicts.jsonl                    at the end: a record for each image
scores.json                       at the end: the figures
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.runtime.files import atomic_write

ABOUT = ("versions",)
"""Parts of config.json that tell about an evaluation and do not define it."""


class AttackOutcome(NamedTuple):
    """What one run did to one image; see `AttackResult`."""

    id: int
    fallen: bool
    iterate: int
    forwards: int
    backwards: int
    lead: float | None
    distance: float


@dataclass(frozen=True)
class LogEntry:
    """One batch of one run of one part of an attack: who was in it, and what became of each."""

    attack: str
    part: str
    run: int
    seconds: float
    outcomes: tuple[AttackOutcome, ...]
    snapshots: dict[str, list[bool]] = field(default_factory=dict)

    @staticmethod
    def read(text: str) -> LogEntry:
        """The line that was written down."""
        parts = json.loads(text)
        outcomes = tuple(AttackOutcome(*outcome) for outcome in parts.pop("outcomes"))
        return LogEntry(**parts, outcomes=outcomes)


class EvaluationLog:
    """The lines so far, in memory and, with a folder, on the disk."""

    def __init__(self, folder: Path | None = None, rank: int = 0):
        self.folder, self.rank, self.lines = folder, rank, list[LogEntry]()
        if folder:
            self._mend()
            self.reread()
        self._own = len(self._own_file.read_text().splitlines()) if self._there() else 0

    @staticmethod
    def start(folder: Path | str, config: dict[str, Any], rank: int = 0) -> EvaluationLog:
        """Make the folder, or go on with it. Raises InputError if it holds anything else."""
        folder = Path(folder)
        file, plain = folder / "config.json", json.loads(json.dumps(config))
        taken = folder.exists() and _is_taken(folder)  # before another rank has made its own
        if file.exists():
            there = _read(file)
            found = diff(_defining(plain), _defining(there))
            if found:
                raise InputError(
                    f"{folder} holds another evaluation; it differs in {'; '.join(found)}. "
                    "Choose another folder with --out, or delete this one"
                )
        elif taken:
            raise InputError(f"{folder} is not empty and not an evaluation; choose another --out")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(plain, indent=2) + "\n"
            own = file.with_name(f"{file.name}-{rank}")
            atomic_write(own, lambda part: part.write_text(text))
            own.replace(file)
        return EvaluationLog(folder, rank)

    def write(self, line: LogEntry, points: Tensor | None = None) -> None:
        """Append a line, and before it the points [F, C, H, W] that images fell to, if given."""
        self.lines.append(line)
        if self.folder is None:
            return
        fallen = [outcome.id for outcome in line.outcomes if outcome.fallen]
        if points is not None and fallen:
            tensors = {"id": torch.tensor(fallen), "x": points.cpu().contiguous()}
            held = save(tensors, {"attack": line.attack, "run": f"{line.run:06d}"})
            name = f"adversarial-{self.rank}-{self._own:06d}.safetensors"
            atomic_write(self.folder / name, lambda part: part.write_bytes(held))
        with self._own_file.open("a") as file:
            file.write(json.dumps(asdict(line)) + "\n")
        self._own += 1

    def reread(self) -> None:
        """Take in what every rank has written."""
        files = sorted(self.folder.glob("journal-*.jsonl")) if self.folder else []
        self.lines = [line for file in files for line in _lines(file)] if files else self.lines

    def points(self) -> dict[str, dict[int, Tensor]]:
        """By attack and id, the points that images fell to; empty if they were not kept."""
        found: dict[str, dict[int, Tensor]] = {}
        files = self.folder.glob("adversarial-*.safetensors") if self.folder else []
        for path in sorted(
            files, key=_run_of, reverse=True
        ):  # an image keeps what it fell to first
            with safe_open(path, "pt") as file:
                mine = found.setdefault(file.metadata()["attack"], {})
                ids, points = file.get_tensor("id").tolist(), file.get_tensor("x")
            mine.update(zip(ids, points, strict=True))
        return found

    @property
    def _own_file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"journal-{self.rank}.jsonl"

    def _there(self) -> bool:
        return self.folder is not None and self._own_file.exists()

    def _mend(self) -> None:
        """Cut off a last line that a kill left unfinished."""
        if self._there():
            content = self._own_file.read_bytes()
            if len(content) != (end := content.rfind(b"\n") + 1):
                os.truncate(self._own_file, end)


def _lines(file: Path) -> Iterator[LogEntry]:
    """The lines that are whole. Raises InputError for one that a journal never held."""
    for number, text in enumerate(file.read_text(errors="replace").split("\n")[:-1], 1):
        try:
            yield LogEntry.read(text)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"line {number} of {file} is damaged; delete that line, and its batch is run again"
            ) from error


def _read(file: Path) -> dict[str, Any]:
    """A config.json. Raises InputError if it is not that of an evaluation."""
    try:
        config: dict[str, Any] = json.loads(file.read_text())
        config["model_fingerprint"], config["attacks"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{file.parent} is not empty and not an evaluation; choose another --out"
        ) from None
    return config


def _is_taken(folder: Path) -> bool:
    """Whether there is more than a config.json in the making."""
    if not folder.is_dir():
        return True
    return any(not inside.name.startswith("config.json") for inside in folder.iterdir())


def _run_of(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return str(file.metadata()["run"])


def _defining(config: dict[str, Any]) -> dict[str, Any]:
    """The fields that identify an evaluation."""
    return {key: value for key, value in config.items() if key not in ABOUT}
