"""What files say, read with types and bounds: metadata of weights, config.json, metrics.jsonl.

A file may come from a stranger. What it says is compared with the fields that nuat writes, so that
anything else ends in one InputError, which names the file, the value and what is allowed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nuat.errors import InputError
from nuat.threat_models import Ball, parse_ball

MAX_DEPTH = 50
"""How deep JSON may be nested; recipes are nested about five deep."""
MAX_TEXT = 10_000
MAX_CLASSES = 1_000_000
MAX_COUNT = 10**12
MAX_CHANNELS = 10_000
MAX_SIDE = 100_000
MAX_IMAGE = 2**28
"""The most numbers that an image may have: 1 GiB in float32."""


@dataclass(frozen=True)
class Field:
    """What a field must be: `fits` checks a value, `description` says it in an error."""

    description: str
    fits: Callable[[Any], bool]


def parse_json(text: str, source: object) -> Any:
    """Return the value of a JSON text. Raises InputError if it is damaged or nested too deep."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deep"
        raise InputError(f"{source} is damaged, it is not JSON: {reason}") from None
    if _depth_exceeds(value, MAX_DEPTH):
        raise InputError(f"{source} is nested more than {MAX_DEPTH} deep: nuat did not write it")
    return value


def check_fields(
    found: Any, fields: Mapping[str, Field], source: object, optional: Collection[str] = ()
) -> None:
    """Raise InputError unless each of the `fields` is in `found` and fits.

    The keys of `fields` are paths with dots, such as `recipe.epochs`; those that are `optional` may
    be missing.
    """
    for path, expected in fields.items():
        value = found
        for part in path.split("."):
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING:
            if path not in optional:
                raise InputError(f"{source} lacks {path}, {expected.description}")
        elif not expected.fits(value):
            raise InputError(
                f"{source}: {path} is {shorten(value)}, but must be {expected.description}"
            )


def shorten(value: object) -> str:
    """Return at most 80 characters of the repr of a value."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def whole_number(low: int, high: int) -> Field:
    """A whole number from `low` to `high`."""
    return Field(
        f"a whole number from {low} to {high}",
        lambda value: _is_whole(value) and low <= value <= high,
    )


def number(low: float, high: float) -> Field:
    """A finite number from `low` to `high`."""
    return Field(
        f"a number from {low:g} to {high:g}",
        lambda value: _is_number(value) and low <= value <= high,
    )


def list_of(item: Field, low: int = 0, high: int = MAX_COUNT) -> Field:
    """A list of `low` to `high` items that fit."""
    return Field(
        f"a list of {item.description} each",
        lambda value: (
            isinstance(value, list) and low <= len(value) <= high and all(map(item.fits, value))
        ),
    )


def mapping_of(item: Field) -> Field:
    """An object whose values fit."""
    return Field(
        f"an object of {item.description} each",
        lambda value: isinstance(value, Mapping) and all(map(item.fits, value.values())),
    )


def either(*fields: Field) -> Field:
    """What fits one of the fields."""
    return Field(
        " or ".join(field.description for field in fields),
        lambda value: any(field.fits(value) for field in fields),
    )


ANYTHING = Field("any value", lambda value: True)
TEXT = Field(
    f"text of at most {MAX_TEXT:,} characters",
    lambda value: isinstance(value, str) and len(value) <= MAX_TEXT,
)
FLAG = Field("true or false", lambda value: isinstance(value, bool))
NOTHING = Field("null", lambda value: value is None)
COUNT = whole_number(0, MAX_COUNT)
SEED = Field("a whole number", lambda value: _is_whole(value))
NUMBER = Field("a number", lambda value: isinstance(value, int | float) and _is_float(value))
SECONDS = number(0, MAX_COUNT)
SHARE = number(0, 1)
CLASSES = list_of(TEXT, 1, MAX_CLASSES)
_MISSING = object()

RUN_CONFIG = {
    "recipe": mapping_of(ANYTHING),
    "recipe.name": TEXT,
    "recipe.data": TEXT,
    "recipe.epochs": whole_number(1, MAX_COUNT),
    "recipe.ball": mapping_of(ANYTHING),
    "recipe.ball.is": TEXT,
    "data": mapping_of(ANYTHING),
    "data.name": TEXT,
    "data.classes": CLASSES,
    "data.train": COUNT,
    "data.val": COUNT,
    "data.test": COUNT,
    "model": TEXT,
    "parameters": COUNT,
    "channels": whole_number(1, MAX_CHANNELS),
    "seed": SEED,
    "init": TEXT,
    "init_from": TEXT,
    "versions": mapping_of(TEXT),
}
"""The fields of a run's config.json that nuat reads (docs/file_formats.md)."""

ONLY_WITH_INIT = ("init", "init_from")

_METRICS = {
    "epoch": whole_number(1, MAX_COUNT),
    "loss": NUMBER,
    "val_clean": SHARE,
    "val_fgsm": SHARE,
    "val_robust": SHARE,
    "seconds": SECONDS,
    "forward_equivalents": SECONDS,
    "peak_mib": SECONDS,
    "catastrophic_overfitting": TEXT,
    "stopped": FLAG,
}
_METRIC = either(NUMBER, TEXT, FLAG, list_of(NUMBER))
MAX_METRICS = 500


def check_metrics(line: Any, source: object) -> None:
    """Raise InputError unless `line` is a line of metrics.jsonl."""
    check_fields(line, _METRICS, source, optional=_METRICS.keys() - {"epoch"})
    if len(line) > MAX_METRICS:
        raise InputError(f"{source} has {len(line)} fields, but at most {MAX_METRICS} are read")
    for key, value in line.items():
        if not _METRIC.fits(value):
            raise InputError(
                f"{source}: {key} is {shorten(value)}, but must be {_METRIC.description}"
            )


CHECKPOINT = {
    "config": mapping_of(ANYTHING),
    "config.recipe": mapping_of(ANYTHING),
    "metrics": list_of(mapping_of(_METRIC)),
    "model": mapping_of(ANYTHING),
    "optimizer": mapping_of(ANYTHING),
    "emas": mapping_of(ANYTHING),
    "memory": mapping_of(ANYTHING),
    "ranks": whole_number(1, MAX_COUNT),
    "epoch": COUNT,
    "batch": COUNT,
    "finished": FLAG,
    "best": Field("numbers", lambda value: isinstance(value, list | tuple)),
    "seconds": SECONDS,
    "losses": list_of(NUMBER, 2, 2),
    "logs.totals": mapping_of(NUMBER),
    "logs.counts": mapping_of(COUNT),
    "skipped": COUNT,
    "lr_factor": number(0, 1),
    "probe": mapping_of(TEXT),
}
"""The fields of checkpoint.pt (docs/file_formats.md)."""


@dataclass(frozen=True)
class WeightsMetadata:
    """The metadata of a weights file (docs/file_formats.md); None is what the file lacks."""

    model: str | None = None
    model_class: str | None = None
    recipe: str | None = None
    data: str | None = None
    classes: tuple[str, ...] | None = None
    channels: int | None = None
    image_size: tuple[int, int] | None = None
    ball: Ball | None = None
    epoch: int | None = None
    probe_logits: tuple[float, ...] | None = None


_SIZE = list_of(whole_number(1, MAX_SIDE), 2, 2)
_METADATA = {
    "model": TEXT,
    "model_class": TEXT,
    "recipe": TEXT,
    "data": TEXT,
    "ball": TEXT,
    "classes": CLASSES,
    "channels": whole_number(1, MAX_CHANNELS),
    "image_size": Field(f"two whole numbers from 1 to {MAX_SIDE}, in brackets", _SIZE.fits),
    "epoch": whole_number(0, MAX_COUNT),
    "probe_logits": list_of(NUMBER, 1, MAX_CLASSES),
}
_JSON_KEYS = ("classes", "channels", "image_size", "epoch", "probe_logits")


def parse_metadata(metadata: Mapping[str, str], source: object) -> WeightsMetadata:
    """Return the metadata of a weights file with their types. Raises InputError if they are wrong.

    Keys that nuat does not read are ignored.
    """
    values: dict[str, Any] = {}
    for key, text in metadata.items():
        if key in _METADATA:
            name = f"{source}: {key}"
            values[key] = parse_json(text, name) if key in _JSON_KEYS else text
    check_fields(values, _METADATA, source, optional=_METADATA)
    if "ball" in values:
        try:
            values["ball"] = parse_ball(values["ball"])
        except InputError as error:
            raise InputError(f"{source}: the threat model cannot be read: {error}") from None
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    parsed = WeightsMetadata(**values)
    height, width = parsed.image_size or (1, 1)
    if (parsed.channels or 1) * height * width > MAX_IMAGE:
        raise InputError(
            f"{source}: images of {parsed.channels or 1} channels, {height}x{width} pixels, have "
            f"more than {MAX_IMAGE:,} numbers"
        )
    if parsed.probe_logits is not None and None in (parsed.channels, parsed.image_size):
        raise InputError(f"{source}: probe_logits need channels and image_size, which are missing")
    return parsed


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: float) -> bool:
    """Whether a number is no truth value and has a float; NaN and infinity are floats."""
    return not isinstance(value, bool) and (isinstance(value, float) or abs(value) <= 10**300)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and _is_float(value) and math.isfinite(value)


def _depth_exceeds(value: Any, depth: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_depth_exceeds(item, depth - 1) for item in items)
