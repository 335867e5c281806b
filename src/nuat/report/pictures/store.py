"""Measures the pictures of a run, stores their numbers in its folder, and draws them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nuat.checkpoints.fields import parse_json
from nuat.data import ImageDataset, class_balanced
from nuat.errors import InputError
from nuat.nn.fingerprint import fingerprint
from nuat.report.pictures.confusion import draw_confusion, measure_confusion
from nuat.report.pictures.example import draw_example, measure_example
from nuat.report.pictures.radii import draw_radii, measure_radii
from nuat.report.pictures.surface import draw_surface, measure_surface
from nuat.report.pictures.switching import draw_switching
from nuat.rng import derive_seed
from nuat.runtime.checksums import with_checksum, without_checksum
from nuat.runtime.device import device_of
from nuat.runtime.files import atomic_write, check_inside, read_text
from nuat.threat_models import Ball

FILE, FORMAT_VERSION = "figures.json", 1
MEASURED = ("confusion", "surface", "example", "radii")
NAMES = (*MEASURED, "switching")
"""The pictures; all but the last, which draws the metrics, are measured on the network."""
DEFAULT_LAM = 4.5
"""The published weight of the nuclear norm of NuAT, for networks that were trained without."""
EXAMPLES = 32
"""Images among which the example is chosen."""


def measure(
    model: nn.Module,
    images: ImageDataset,
    classes: Sequence[str],
    ball: Ball,
    *,
    names: Sequence[str] = MEASURED,
    count: int = 200,
    lam: float = DEFAULT_LAM,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the pictures of a network, by name; `load` returns the same.

    Args:
        model: the network.
        images: images in [0, 1] with labels, such as the test split.
        classes: the names of the classes.
        ball: the threat model.
        names: which pictures, of MEASURED.
        count: number of images, balanced over the classes.
        lam: the weight of the nuclear norm in the loss surface.
        seed: seed of the images and of all noise.
    """
    count = min(count, len(images))
    chosen = class_balanced(images.y, count, derive_seed(seed, "figures"))
    x, y = (part.to(device_of(model)) for part in images.batch(chosen))
    few = slice(0, EXAMPLES)
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "confusion": lambda: measure_confusion(model, x, y, classes, ball, seed),
        "surface": lambda: measure_surface(
            model, x[:1], y[:1], ball, lam, int(chosen[0]), seed=seed
        ),
        "example": lambda: measure_example(model, x[few], y[few], classes, ball, seed),
        "radii": lambda: measure_radii(model, x, y, ball, seed),
    }
    data: dict[str, Any] = {"model_fingerprint": fingerprint(model), "images": count, "seed": seed}
    for name in names:
        data[name] = makers[name]()
    if "example" in data:
        data["example"]["index"] = int(chosen[data["example"]["index"]])
    return data


def save(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write figures.json in a run folder; pictures of the same weights that it has stay there."""
    file = folder / FILE
    check_inside(file, folder)
    stored = load(folder, data["model_fingerprint"])
    content = with_checksum({"format_version": FORMAT_VERSION, **stored, **data})
    atomic_write(file, lambda part: part.write_text(json.dumps(content) + "\n"))
    return file


def load(folder: Path, model_fingerprint: str | None = None) -> dict[str, Any]:
    """Read figures.json of a run folder; {} if there is none, or if it is of other weights.

    Raises:
        InputError: the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        data = without_checksum(parse_json(read_text(file), file), file)
    except (InputError, AttributeError) as error:
        raise InputError(f"{error}. Delete it, and run nuat figures again") from None
    if data.pop("format_version") != FORMAT_VERSION:
        raise InputError(f"{file} is of another version: delete it, and run nuat figures again")
    same = model_fingerprint in (None, data["model_fingerprint"])
    return data if same else {}


def draw(
    data: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]] = (), name: str = "PGD-20"
) -> dict[str, dict[str, str]]:
    """Draw the pictures of one run by name: those in `data`, and NuAT-H's from its `metrics`."""
    charts = {}
    drawers = {"confusion": draw_confusion, "surface": draw_surface, "example": draw_example}
    for key, drawer in drawers.items():
        if key in data:
            charts[key] = drawer(data[key])
    if "radii" in data:
        charts["radii"] = draw_radii({name: data["radii"]})
    if switching := draw_switching(metrics):
        charts["switching"] = switching
    return charts
