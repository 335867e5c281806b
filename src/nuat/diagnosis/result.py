"""The result of a diagnosis, and its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nuat.checkpoints.fields import (
    ANYTHING,
    COUNT,
    NOTHING,
    NUMBER,
    SECONDS,
    SEED,
    SHARE,
    TEXT,
    Field,
    check_fields,
    either,
    list_of,
    mapping_of,
    parse_json,
    whole_number,
)
from nuat.diagnosis.check import VERDICTS, Check, Verdict, worst
from nuat.errors import InputError
from nuat.runtime.checksums import with_checksum, without_checksum
from nuat.runtime.files import atomic_write, read_text

FORMAT_VERSION = 1
FILE_NAME = "diagnosis.json"
OUT_OF_TIME_REASON = "the time is over (--max-time)"


@dataclass(frozen=True)
class Diagnosis:
    """The checks of a model, and what they were made with.

    Attributes:
        checks: the checks in the order in which they ran.
        clean_accuracy: the fraction of the images that are classified correctly.
        robust_accuracy: the fraction that withstands every attack of the diagnosis in `ball`; an
            upper bound, from a sample.
        classes: K.
        indices: the images of the sample.
        ball: the threat model, such as `Linf(0.03)`.
        seed: the seed of the noise and of the sample.
        seconds: how long it took.
        model_fingerprint: a hash of the model's weights.
        versions: versions of nuat, torch, numpy and Python.
        metadata: what the caller stored.
    """

    checks: Sequence[Check]
    clean_accuracy: float
    robust_accuracy: float
    classes: int
    indices: list[int]
    ball: str
    seed: int
    seconds: float
    model_fingerprint: str
    versions: dict[str, str]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks; skipped ones do not count."""
        return worst([check.verdict for check in self.checks if check.verdict != "skipped"])

    @property
    def ran_out_of_time(self) -> bool:
        """Whether checks were skipped because `max_time` was over."""
        return any(check.measured == OUT_OF_TIME_REASON for check in self.checks)

    @property
    def summary(self) -> str:
        """The verdict as one sentence."""
        if all(check.verdict == "skipped" for check in self.checks):
            return "nothing was checked"
        figure = (
            f"{self.robust_accuracy:.1%} of {len(self.indices)} images withstand all attacks here"
        )
        failed = [check.name for check in self.checks if check.verdict == "fail"]
        if failed:
            return f"{figure}, but do not believe a robust accuracy: {', '.join(failed)} failed"
        if self.robust_accuracy <= 1 / self.classes:
            return f"{figure}: the model is not robust, and does not pretend to be"
        warned = [check.name for check in self.checks if check.verdict == "warn"]
        if warned:
            return f"{figure}; look at {', '.join(warned)} before you report it"
        if self.ran_out_of_time:
            return f"{figure}; nothing speaks against it yet, but checks are left"
        return f"{figure}; nothing speaks against it"

    def __getitem__(self, name: str) -> Check:
        """The check of this name."""
        return {check.name: check for check in self.checks}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of diagnosis.json: all fields, the verdict, a checksum."""
        content = {"format_version": FORMAT_VERSION, "verdict": self.verdict, **asdict(self)}
        return with_checksum(_without_infinities(json.loads(json.dumps(content))))

    @staticmethod
    def from_dict(content: Any, source: object = "the diagnosis") -> Diagnosis:
        """Return the diagnosis that `to_dict` describes; `source` is what errors call it.

        Raises:
            InputError: the format has another version, or a field is missing or wrong.
        """
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version != FORMAT_VERSION:
            raise InputError(
                f"{source} has format_version {version}, but this nuat reads {FORMAT_VERSION}: "
                "diagnose again"
            )
        check_fields(content, _FIELDS, source)
        for check in content["checks"]:
            check_fields(check, _CHECK, source)
        without_checksum(content, source)
        names = {each.name for each in fields(Diagnosis)}
        values = {name: content[name] for name in names}
        checks = [
            Check(**{f.name: each[f.name] for f in fields(Check)}) for each in values["checks"]
        ]
        return Diagnosis(**{**values, "checks": checks})

    def write(self, file: Path) -> None:
        """Write the diagnosis as a file."""
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        atomic_write(file, lambda partial: partial.write_text(text, encoding="utf-8"))

    @staticmethod
    def read(file: Path) -> Diagnosis:
        """Read a file that `write` has written. Raises InputError if it is another one."""
        return Diagnosis.from_dict(parse_json(read_text(file), file), file)


def _without_infinities(value: Any) -> Any:
    """The same JSON value with null for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_NUMBER = either(NUMBER, NOTHING)
_FIELDS = {
    "checks": list_of(mapping_of(ANYTHING), low=1),
    "clean_accuracy": SHARE,
    "robust_accuracy": SHARE,
    "classes": whole_number(1, 10**6),
    "indices": list_of(COUNT, low=1),
    "ball": TEXT,
    "seed": SEED,
    "seconds": SECONDS,
    "model_fingerprint": TEXT,
    "versions": mapping_of(TEXT),
    "metadata": mapping_of(ANYTHING),
}
_CHECK = {
    "name": TEXT,
    "verdict": Field(f"one of {', '.join(VERDICTS)}", lambda value: value in VERDICTS),
    "measured": TEXT,
    "normal": TEXT,
    "advice": TEXT,
    "numbers": mapping_of(_NUMBER),
    "curves": mapping_of(list_of(_NUMBER)),
}
"""The fields of diagnosis.json (docs/file_formats.md)."""
