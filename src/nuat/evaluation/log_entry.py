"""One line of the log of an evaluation: the outcome of one run for each image of a batch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from nuat.checkpoints.fields import (
    COUNT,
    FLAG,
    NOTHING,
    NUMBER,
    SECONDS,
    TEXT,
    Field,
    check_fields,
    either,
    list_of,
    mapping_of,
    parse_json,
)
from nuat.errors import InputError
from nuat.runtime.checksums import KEY, check_checksum, checksum

FORMAT_VERSION = 1
"""Version of the format of every file in an evaluation folder."""

ADVERSARIAL_NAME = re.compile(r"adversarial-[0-9a-f]{16}\.safetensors")


class RunKey(NamedTuple):
    """One run: which attack, which part of it, and which of its targets and restarts."""

    attack: str
    part: str
    run: int


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """The outcome of one run for one image; see `nuat.attacks.AttackResult`.

    `adversarial_8bit` and `distance_8bit` are those of the adversarial image rounded to 8 bits; see
    `nuat.evaluation.eight_bit`.
    """

    index: int
    adversarial: bool
    step: int
    forwards: int
    backwards: int
    margin: float | None
    distance: float
    adversarial_8bit: bool
    distance_8bit: float | None


@dataclass(frozen=True)
class LogEntry:
    """One batch of one run.

    Attributes:
        key: the run.
        seconds: how long the batch took.
        outcomes: the outcome for each image of the batch.
        snapshots: for each snapshot step, whether each image is robust at that iterate.
        bad_gradients: the number of input gradients with NaN or infinite entries.
        adversarial_file: the name of the file of the adversarial images; None without one.
    """

    key: RunKey
    seconds: float
    outcomes: tuple[AttackOutcome, ...]
    snapshots: dict[int, list[bool]] = field(default_factory=dict)
    bad_gradients: int = 0
    adversarial_file: str | None = None

    def to_json(self, evaluation: str = "") -> str:
        """Return the entry as one line of JSON, whose checksum includes the `evaluation`."""
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
            "adversarial_file": self.adversarial_file,
        }
        return json.dumps(line | {KEY: checksum([evaluation, line])})

    @staticmethod
    def from_json(text: str, evaluation: str = "") -> LogEntry:
        """Read what `to_json` returns. Raises InputError for anything else."""
        line = parse_json(text, "the line")
        check_fields(line, _LOG_LINE, "the line")
        stored = line.pop(KEY)
        check_checksum([evaluation, line], stored, "the line")
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
            adversarial_file=line["adversarial_file"],
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
    "outcomes.adversarial_8bit": list_of(FLAG),
    "outcomes.distance_8bit": list_of(either(NUMBER, NOTHING)),
    "snapshots": mapping_of(list_of(FLAG)),
    "bad_gradients": COUNT,
    "adversarial_file": either(
        NOTHING,
        Field("the name of a file", lambda v: bool(ADVERSARIAL_NAME.fullmatch(str(v)))),
    ),
    KEY: TEXT,
}
"""The fields of a line of the log (docs/file_formats.md)."""
