"""The log of an evaluation: an append-only file from which a killed evaluation resumes.

docs/file_formats.md describes the files of an evaluation folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nuat.checkpoints.fields import (
    COUNT,
    FLAG,
    NOTHING,
    NUMBER,
    SECONDS,
    TEXT,
    check_fields,
    either,
    list_of,
    mapping_of,
    parse_json,
)
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.evaluation.probe import probes_differ
from nuat.runtime.files import atomic_write, check_inside

FORMAT_VERSION = 1
"""Version of the format of every file in an evaluation folder."""


class RunKey(NamedTuple):
    """One run: which attack, which part of it, and which of its targets and restarts."""

    attack: str
    part: str
    run: int


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """The outcome of one run for one image; see `nuat.attacks.AttackResult`."""

    index: int
    adversarial: bool
    step: int
    forwards: int
    backwards: int
    margin: float | None
    distance: float


@dataclass(frozen=True)
class LogEntry:
    """One batch of one run.

    Attributes:
        key: the run.
        seconds: how long the batch took.
        outcomes: the outcome for each image of the batch.
        snapshots: for each snapshot step, whether each image is robust at that iterate.
        bad_gradients: the number of input gradients with NaN or infinite entries.
    """

    key: RunKey
    seconds: float
    outcomes: tuple[AttackOutcome, ...]
    snapshots: dict[int, list[bool]] = field(default_factory=dict)
    bad_gradients: int = 0

    def to_json(self) -> str:
        """Return the entry as one line of JSON."""
        columns = {
            column.name: [getattr(outcome, column.name) for outcome in self.outcomes]
            for column in fields(AttackOutcome)
        }
        line = {
            "format_version": FORMAT_VERSION,
            **self.key._asdict(),
            "seconds": self.seconds,
            "outcomes": columns,
            "snapshots": self.snapshots,
            "bad_gradients": self.bad_gradients,
        }
        return json.dumps(line)

    @staticmethod
    def from_json(text: str) -> LogEntry:
        """Read what `to_json` returns. Raises InputError for anything else."""
        line = parse_json(text, "the line")
        check_fields(line, _LOG_LINE, "the line")
        images = len(line["outcomes"]["index"])
        lists = [*line["outcomes"].values(), *line["snapshots"].values()]
        if any(not isinstance(values, list) or len(values) != images for values in lists):
            raise InputError("its lists differ in length")
        columns = (line["outcomes"][column.name] for column in fields(AttackOutcome))
        return LogEntry(
            key=RunKey(line["attack"], line["part"], line["run"]),
            seconds=line["seconds"],
            outcomes=tuple(AttackOutcome(*values) for values in zip(*columns, strict=True)),
            snapshots={int(step): robust for step, robust in line["snapshots"].items()},
            bad_gradients=line["bad_gradients"],
        )


_LOG_LINE = {
    "attack": TEXT,
    "part": TEXT,
    "run": COUNT,
    "seconds": SECONDS,
    "outcomes.index": list_of(COUNT),
    "outcomes.adversarial": list_of(FLAG),
    "outcomes.step": list_of(COUNT),
    "outcomes.forwards": list_of(COUNT),
    "outcomes.backwards": list_of(COUNT),
    "outcomes.margin": list_of(either(NUMBER, NOTHING)),
    "outcomes.distance": list_of(NUMBER),
    "snapshots": mapping_of(list_of(FLAG)),
    "bad_gradients": COUNT,
}
"""The fields of a line of the log (docs/file_formats.md)."""


class EvaluationLog:
    """The entries of an evaluation, in memory and, if there is a folder, in log-RANK.jsonl."""

    def __init__(self, folder: Path | None = None, rank: int = 0):
        self.folder, self.rank, self.entries = folder, rank, list[LogEntry]()
        self._num_written = 0
        if folder is not None and self._file.exists():
            self._truncate_partial()
        self.reload()

    @staticmethod
    def open(folder: Path | None, config: dict[str, Any], rank: int = 0) -> EvaluationLog:
        """Create the folder, or resume the evaluation in it; without a folder, log in memory.

        Raises:
            InputError: the folder contains anything other than an evaluation with this `config`.
        """
        if folder is None:
            return EvaluationLog()
        config = json.loads(json.dumps(config))
        file = folder / "config.json"
        # Other ranks may write config.json at any moment: look at the folder first.
        occupied = folder.exists() and _is_occupied(folder)
        if file.exists():
            _check_config(config, folder)
        elif occupied:
            raise _not_an_evaluation(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(config, indent=2) + "\n"
            own = file.with_name(f"{file.name}-{rank}")
            atomic_write(own, lambda part: part.write_text(text))
            own.replace(file)
        return EvaluationLog(folder, rank)

    @staticmethod
    def check_folder(folder: Path | None, config: dict[str, Any]) -> None:
        """Check all of `config` but the images, which are not read yet; see `open`."""
        if folder is None:
            return
        if (folder / "config.json").exists():
            _check_config(json.loads(json.dumps(config)), folder, ignored=("images", "model_probe"))
        elif folder.exists() and _is_occupied(folder):
            raise _not_an_evaluation(folder)

    def append(self, entry: LogEntry, x_adv: Tensor | None = None) -> None:
        """Append an entry; before it, store its adversarial images `x_adv` [F, C, H, W], if any."""
        self.entries.append(entry)
        if self.folder is None:
            return
        broken = [outcome.index for outcome in entry.outcomes if outcome.adversarial]
        if x_adv is not None and broken:
            tensors = {"index": torch.tensor(broken), "x_adv": x_adv.cpu().contiguous()}
            # zero-padded, so that runs sort as text
            content = save(tensors, {"attack": entry.key.attack, "run": f"{entry.key.run:06d}"})
            name = f"adversarial-{self.rank}-{self._num_written:06d}.safetensors"
            atomic_write(self.folder / name, lambda part: part.write_bytes(content))
        check_inside(self._file, self.folder)
        with self._file.open("a") as file:
            file.write(entry.to_json() + "\n")
        self._num_written += 1

    def reload(self) -> None:
        """Read the entries of all ranks."""
        if self.folder is not None:
            files = sorted(self.folder.glob("log-*.jsonl"))
            self.entries = [entry for file in files for entry in _read_entries(file)]
            if self._file.exists():
                self._num_written = self._file.read_bytes().count(b"\n")

    def completed(self, key: RunKey) -> dict[int, bool]:
        """Return the images on which this run is complete, and whether it broke them."""
        entries = (entry for entry in self.entries if entry.key == key)
        return {
            outcome.index: outcome.adversarial for entry in entries for outcome in entry.outcomes
        }

    def adversarial_images(self) -> dict[str, dict[int, Tensor]]:
        """Return the stored adversarial images [C, H, W] by attack and image index."""
        images: dict[str, dict[int, Tensor]] = {}
        paths = self.folder.glob("adversarial-*.safetensors") if self.folder else ()
        # Later runs come first, so that the first run that breaks an image overwrites the others.
        for path in sorted(paths, key=_run_number, reverse=True):
            with _adversarial_file(path) as (file, metadata):
                of_attack = images.setdefault(metadata["attack"], {})
                indices, x_adv = file.get_tensor("index").tolist(), file.get_tensor("x_adv")
                of_attack.update(zip(indices, x_adv, strict=True))
        return images

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"log-{self.rank}.jsonl"

    def _truncate_partial(self) -> None:
        """Remove a last line that a kill left unfinished."""
        assert self.folder is not None
        check_inside(self._file, self.folder)
        content = self._file.read_bytes()
        if len(content) != (end := content.rfind(b"\n") + 1):
            os.truncate(self._file, end)


def _read_entries(file: Path) -> Iterator[LogEntry]:
    """Read the complete lines of a log. Raises InputError for a damaged one."""
    for number, text in enumerate(file.read_text(errors="replace").split("\n")[:-1], 1):
        try:
            yield LogEntry.from_json(text)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"line {number} of {file} is damaged; delete that line, and its batch is run again"
            ) from error


def _check_config(config: dict[str, Any], folder: Path, ignored: Sequence[str] = ()) -> None:
    """Raise InputError unless the folder contains the evaluation that `config` describes."""
    try:
        stored = parse_json((folder / "config.json").read_text(), folder / "config.json")
        stored["model_fingerprint"], stored["attacks"]
    except (ValueError, KeyError, TypeError):
        raise _not_an_evaluation(folder) from None
    # an evaluation may resume under another version of torch, and on a device that rounds otherwise
    apart = {*ignored, "versions", "model_probe"}
    here, there = ({k: v for k, v in each.items() if k not in apart} for each in (config, stored))
    differences = diff(here, there)
    if "model_probe" not in ignored and not differences:
        probe, stored_probe = config.get("model_probe", []), stored.get("model_probe", [])
        if probes_differ(probe, stored_probe):
            differences = ["the logits of the model for the same images (model_probe)"]
    if differences:
        raise InputError(
            f"{folder} contains another evaluation; it differs in {'; '.join(differences)}. "
            "Choose another folder with --out, or delete this one"
        )


def _not_an_evaluation(folder: Path) -> InputError:
    return InputError(f"{folder} is not empty and not an evaluation; choose another --out")


def _is_occupied(folder: Path) -> bool:
    """Return whether the folder contains more than a config.json that is being written."""
    if not folder.is_dir():
        return True
    return any(not path.name.startswith("config.json") for path in folder.iterdir())


def _run_number(path: Path) -> str:
    with _adversarial_file(path) as (_, metadata):
        return metadata["run"]


@contextmanager
def _adversarial_file(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open stored adversarial images, with their metadata. Raises InputError for a damaged file."""
    try:
        with safe_open(path, "pt") as file:
            yield file, file.metadata()
    except Exception as error:  # whatever the library raises for a file that nuat did not write
        raise InputError(
            f"{path} does not hold adversarial images of this evaluation ({error}): delete the "
            "folder, and evaluate again"
        ) from None
