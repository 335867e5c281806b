"""The log of an evaluation: an append-only file from which a killed evaluation resumes.

docs/file_formats.md describes the files of an evaluation folder.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nuat.checkpoints.fields import parse_json
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.evaluation.log_entry import LogEntry, RunKey
from nuat.evaluation.probe import probes_differ
from nuat.runtime.checksums import checksum
from nuat.runtime.files import (
    atomic_write,
    check_inside,
    check_regular,
    explain_write_errors,
    read_text,
)

NOT_IDENTIFYING = ("versions", "model_probe")
"""Fields of config.json that may change while an evaluation is resumed: the version of torch, and
the rounding of another device."""


class EvaluationLog:
    """The entries of an evaluation, in memory and, if there is a folder, in log-RANK.jsonl.

    `evaluation` is the checksum of what identifies the evaluation; it makes a line of another one
    invalid.
    """

    def __init__(self, folder: Path | None = None, rank: int = 0, evaluation: str = ""):
        self.folder, self.rank, self.evaluation = folder, rank, evaluation
        self.entries, self._reported = list[LogEntry](), set[str]()

    @staticmethod
    def open(folder: Path | None, config: dict[str, Any], rank: int = 0) -> EvaluationLog:
        """Create the folder, or resume the evaluation in it; without a folder, log in memory.

        The entries are read by `reload`, once the folder is locked.

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
            atomic_write(file, lambda part: part.write_text(text))
        identity = {key: value for key, value in config.items() if key not in NOT_IDENTIFYING}
        return EvaluationLog(folder, rank, checksum(identity))

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
        """Append an entry; before it, store its adversarial images `x_adv` [F, C, H, W], if any.

        Raises:
            OSError: the disk is full, or the folder cannot be written any more.
        """
        broken = [outcome.index for outcome in entry.outcomes if outcome.adversarial]
        if self.folder is not None and x_adv is not None and broken:
            tensors = {"index": torch.tensor(broken), "x_adv": x_adv.cpu().contiguous()}
            content = save(tensors)
            entry = replace(entry, adversarial_file=_adversarial_name(content))
            path = self.folder / _adversarial_name(content)
            atomic_write(path, lambda part: part.write_bytes(content))
        if self.folder is not None:
            self._write_line(entry.to_json(self.evaluation) + "\n")
        self.entries.append(entry)

    def _write_line(self, line: str) -> None:
        """Append a line to the file and flush it to the disk, or leave the file as it was."""
        assert self.folder is not None
        check_inside(self._file, self.folder)
        check_regular(self._file)
        size = self._file.stat().st_size if self._file.exists() else 0
        try:
            with explain_write_errors(self._file), self._file.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(self._file, size)
            raise

    def reload(self) -> None:
        """Read the entries of all ranks; remove a last line of this rank that a kill left half.

        A line is left out, with a warning, if it is damaged, belongs to another evaluation, repeats
        some images or lacks its file of adversarial images: its images are attacked again.
        """
        if self.folder is None:
            return
        self._truncate_partial()
        self.entries = []
        seen = set[tuple[RunKey, int]]()
        for file in sorted(self.folder.glob("log-*.jsonl")):
            for number, text in enumerate(read_text(file).split("\n")[:-1], 1):
                try:
                    entry = LogEntry.from_json(text, self.evaluation)
                    images = {(entry.key, outcome.index) for outcome in entry.outcomes}
                    if images <= seen:
                        continue  # the same line again
                    if len(images) < len(entry.outcomes) or not images.isdisjoint(seen):
                        raise InputError("the line repeats images of another line")
                    if entry.adversarial_file and not self._adversarial_path(entry).is_file():
                        raise InputError(f"{entry.adversarial_file} of the line is lost")
                except (ValueError, TypeError, KeyError) as error:
                    self._report(f"line {number} of {file} is not used ({error})")
                else:
                    seen |= images
                    self.entries.append(entry)

    def _report(self, text: str) -> None:
        """Warn of a line, once."""
        if text not in self._reported:
            self._reported.add(text)
            warnings.warn(f"{text}: images that lack it are attacked again", stacklevel=3)

    def completed(self, key: RunKey) -> dict[int, bool]:
        """Return the images on which this run is complete, and whether it broke them."""
        entries = (entry for entry in self.entries if entry.key == key)
        return {
            outcome.index: outcome.adversarial for entry in entries for outcome in entry.outcomes
        }

    def adversarial_images(self) -> dict[str, dict[int, Tensor]]:
        """Return the stored adversarial images [C, H, W] by attack and image index.

        Raises:
            InputError: a file is damaged.
        """
        images: dict[str, dict[int, Tensor]] = {}
        stored = [entry for entry in self.entries if entry.adversarial_file]
        # Later runs come first, so that the first run that breaks an image overwrites the others.
        for entry in sorted(stored, key=lambda entry: entry.key.run, reverse=True):
            path = self._adversarial_path(entry)
            check_regular(path)
            if _adversarial_name(content := path.read_bytes()) != path.name:
                raise InputError(
                    f"{path} is damaged: delete it and run the same command again, which attacks "
                    "its images again"
                )
            tensors = load(content)
            indices, x_adv = tensors["index"].tolist(), tensors["x_adv"]
            images.setdefault(entry.key.attack, {}).update(zip(indices, x_adv, strict=True))
        return images

    def _adversarial_path(self, entry: LogEntry) -> Path:
        assert self.folder is not None and entry.adversarial_file is not None
        return self.folder / entry.adversarial_file

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"log-{self.rank}.jsonl"

    def _truncate_partial(self) -> None:
        if not self._file.exists():
            return
        assert self.folder is not None
        check_inside(self._file, self.folder)
        check_regular(self._file)
        content = self._file.read_bytes()
        if len(content) != (end := content.rfind(b"\n") + 1):
            os.truncate(self._file, end)


def _adversarial_name(content: bytes) -> str:
    return f"adversarial-{blake2b(content, digest_size=8).hexdigest()}.safetensors"


def _check_config(config: dict[str, Any], folder: Path, ignored: Sequence[str] = ()) -> None:
    """Raise InputError unless the folder contains the evaluation that `config` describes."""
    try:
        stored = parse_json(read_text(folder / "config.json"), folder / "config.json")
        stored["model_fingerprint"], stored["attacks"]
    except (ValueError, KeyError, TypeError):
        raise _not_an_evaluation(folder) from None
    # an evaluation may resume under another version of torch, and on a device that rounds otherwise
    apart = {*ignored, *NOT_IDENTIFYING}
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
