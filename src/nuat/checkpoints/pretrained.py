"""The trained models that come with nuat, by names such as `nuat:digits/nuat-wa`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from nuat.errors import InputError, unknown_name

PREFIX = "nuat:"
FOLDER = Path(str(files("nuat") / "pretrained"))
"""The weights files, and models.json, which describes them."""


@dataclass(frozen=True)
class PretrainedModel:
    """A trained model that comes with nuat.

    Attributes:
        file: the name of its weights file.
        sha256: the hash of this file, in hexadecimal digits.
        license: the license of the weights.
        recipe, data, ball, seed: what it was trained with.
        changes: what was changed in the recipe; "" if nothing.
        images: the number of test images that were attacked.
        accuracy: accuracies on them in percent: "clean" and one for each attack.
        log: where the log of the evaluation is kept in nuat's repository.
    """

    file: str
    sha256: str
    license: str
    recipe: str
    data: str
    ball: str
    seed: int
    changes: str
    images: int
    accuracy: Mapping[str, float]
    log: str


def is_pretrained(source: Path | str) -> bool:
    """Whether `source` has the form of such a name, `nuat:DATA/RECIPE`, and is no existing path."""
    return str(source).startswith(PREFIX) and not Path(source).exists()


@cache
def list_pretrained() -> dict[str, PretrainedModel]:
    """Return the models that come with nuat, by name: `nuat:digits/nuat-wa` and others."""
    described = json.loads((FOLDER / "models.json").read_text(encoding="utf-8"))
    return {f"{PREFIX}{name}": PretrainedModel(**entry) for name, entry in described.items()}


def pretrained_weights(name: str) -> Path:
    """Return the weights file of a model that comes with nuat.

    Raises:
        InputError: there is no model of this name, or its file is damaged.
    """
    models = list_pretrained()
    if name not in models:
        raise unknown_name("pretrained model", name, models)
    file = FOLDER / models[name].file
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if found != models[name].sha256:
        raise InputError(
            f"{file}, the weights of {name}, are damaged: sha256 is {found}, but must be "
            f"{models[name].sha256}. Install nuat again"
        )
    return file
