"""From files to a network: a run folder, or weights and the name of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.attacks import WORDS
from nuat.errors import InputError
from nuat.models import build
from nuat.network import device_named
from nuat.notation import parse
from nuat.runs import Run, read_weights
from nuat.threat import Ball


@dataclass(frozen=True)
class Trained:
    """A trained network and what is known about it; None where the file does not tell."""

    f: nn.Module
    model: str
    classes: tuple[str, ...] | None
    data: str | None
    ball: Ball | None
    run: Run | None


def described(source: Path | str) -> dict[str, str]:
    """What nuat wrote beside the weights in a run folder or file; nothing in foreign ones."""
    return _read(Path(source))[1]


def trained(
    source: Path | str,
    model: str | None = None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    device: torch.device | str | None = "cpu",
) -> Trained:
    """The network in a run folder (its kept weights) or a weights file, in eval mode.

    What nuat wrote knows its own model; for other weights name the `model`, and the numbers of
    classes and channels if they are not 10 and 3. Raises InputError if the two do not fit.
    """
    path = Path(source)
    run = Run.open(path) if path.is_dir() else None
    weights, about = _read(path)
    model = model or about.get("model")
    if model is None:
        raise InputError(f"{path} does not say which network it belongs to: name it with --model")
    names = tuple(json.loads(about["classes"])) if "classes" in about else None
    f = build(
        model,
        classes=classes or (len(names) if names else 10),
        channels=channels or int(about.get("channels", 3)),
    )
    _pour(f, weights, path, model)
    ball = parse(about["ball"], WORDS) if "ball" in about else None
    return Trained(f.to(device_named(device)).eval(), model, names, about.get("data"), ball, run)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.is_dir():
        Run.open(path)
        path = path / "model.safetensors"
    return read_weights(path)


def _pour(f: nn.Module, weights: Mapping[str, Tensor], path: Path, model: str) -> None:
    own = f.state_dict()
    wrong = [
        *(f"{key} is missing" for key in own if key not in weights),
        *(f"{key} is not of this network" for key in weights if key not in own),
        *(
            f"{key} is {list(weights[key].shape)} and should be {list(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{path} does not fit {model}: {'; '.join(wrong[:3])}{more}")
    f.load_state_dict(weights)
