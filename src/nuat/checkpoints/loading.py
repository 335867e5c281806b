"""StartAt files to a network: a run folder, weights and the name of a model, or a model alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from nuat.attacks import WORDS
from nuat.checkpoints.compatibility import check_architecture, check_data, load_weights, remap_keys
from nuat.checkpoints.files import read, run_in
from nuat.checkpoints.finetune import InitialWeights, load_initial_weights, resolve_init
from nuat.checkpoints.probe import check_answer, probe_metadata
from nuat.checkpoints.run import Run
from nuat.config.imports import is_import_path
from nuat.config.parsing import parse_value
from nuat.errors import InputError
from nuat.models import build_model, is_torch_container, model_registry, requires_trust
from nuat.models.timm_nets import PREFIX
from nuat.runtime.device import get_device
from nuat.threat_models import Ball


@dataclass(frozen=True)
class LoadedModel:
    """A trained network and what is known about it; None where the file does not tell.

    `about` is all the text that was found beside the weights, or belongs there.
    """

    model: nn.Module
    model_name: str
    classes: tuple[str, ...] | None
    data: str | None
    ball: Ball | None
    run: Run | None
    about: Mapping[str, str] = field(default_factory=dict)


def read_metadata(source: Path | str) -> dict[str, str]:
    """What nuat wrote beside the weights in a folder or file; nothing in foreign ones."""
    return {} if _is_network(source) else read(Path(source))[1]


def load_model(
    source: Path | str,
    model: str | None = None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    device: torch.device | str | None = "cpu",
) -> LoadedModel:
    """The network in a run folder (its kept weights) or a weights file, in eval mode.

    What nuat wrote knows its own model; for other weights name the `model`, and the numbers of
    classes and channels if they are not 10 and 3. Instead of a file, `source` may be
    `module:factory`, a function of your own that returns a network ready for use.

    Raises InputError if weights and model do not fit, or are not of the same architecture.
    """
    if _is_network(source):
        return _ready(str(source), model, classes or 10, channels or 3, device)
    path = Path(source)
    run, (weights, about) = run_in(path), read(path)
    check_data(about, classes, channels, path)
    recorded = about.get("model")
    if model is None:
        model = _recorded(path, recorded)
    names = tuple(json.loads(about["classes"])) if "classes" in about else None
    f = _built(
        path,
        model,
        classes or (len(names) if names else 10),
        channels or int(about.get("channels", 3)),
    )
    check_architecture(f, model, recorded, path)
    load_weights(f, weights if recorded else remap_keys(weights, f), path, model)
    check_answer(f, about, path, model)
    ball = parse_value(about["ball"], WORDS) if "ball" in about else None
    about = {"channels": str(channels or 3)} | about | {"model": model}
    f = f.to(get_device(device)).eval()
    return LoadedModel(f, model, names, about.get("data"), ball, run, about)


def _is_network(source: Path | str) -> bool:
    """Whether this names a network, and no file that is there."""
    return is_import_path(str(source).partition("(")[0]) and not Path(source).exists()


def _ready(
    name: str, model: str | None, classes: int, channels: int, device: torch.device | str | None
) -> LoadedModel:
    if model is not None:
        raise InputError(f"{name} is a network, not a file of weights, and takes no --model")
    if name.startswith(PREFIX):
        raise InputError(f"{name} has no robust weights: train it first, with --model {name}")
    f = build_model(name, classes, channels).to(get_device(device)).eval()
    return LoadedModel(f, name, None, None, None, None, {"model": name, "channels": str(channels)})


def _recorded(path: Path, recorded: str | None) -> str:
    if recorded is None:
        raise InputError(f"{path} does not say which network it belongs to: name it with --model")
    if is_torch_container(recorded):
        raise InputError(
            f"{path} holds a {recorded.rpartition(':')[2]} that a Python program handed over; that "
            "name does not tell what is in it: name a function that builds it with --model "
            'module:factory; in Python, model="module:factory"'
        )
    if requires_trust(recorded):
        raise InputError(
            f"{path} was trained on {recorded}, which is code of somebody's own and is not run "
            f"unasked; if you trust it, add --model {recorded!r}"
        )
    return recorded


def _built(path: Path, model: str, classes: int, channels: int) -> nn.Module:
    name = model.partition("(")[0].strip()
    try:
        return build_model(model, classes, channels)
    except InputError as error:
        if name in model_registry or name.startswith(PREFIX):
            raise
        raise InputError(
            f"{path} holds a network {model} that cannot be built from its name ({error}); name "
            "a function that builds it, --model module:factory, or --import the file that registers it"
        ) from error


__all__ = [
    "InitialWeights",
    "LoadedModel",
    "resolve_init",
    "read_metadata",
    "load_initial_weights",
    "probe_metadata",
    "load_model",
]
