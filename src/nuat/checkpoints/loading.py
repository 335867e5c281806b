"""Loading a trained model from a run folder, a weights file, or the user's own code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from nuat.checkpoints.compatibility import check_architecture, check_data, load_weights, remap_keys
from nuat.checkpoints.probe import check_probe
from nuat.checkpoints.run import Run, find_run, find_weights
from nuat.checkpoints.weights_io import read_file_metadata, read_weights
from nuat.config.imports import is_import_path
from nuat.errors import InputError
from nuat.models import build_model, is_torch_container, model_registry, requires_trust
from nuat.models.timm_nets import PREFIX
from nuat.nn.state_dict import plain_state_dict
from nuat.runtime.device import get_device
from nuat.threat_models import Ball, parse_ball

DEFAULT_CLASSES, DEFAULT_CHANNELS = 10, 3


@dataclass(frozen=True)
class LoadedModel:
    """A trained model and what is recorded about it.

    Attributes:
        model: the model in eval mode; it takes images [B, C, H, W] in [0, 1].
        model_name: the text that `nuat.build_model` builds it from.
        classes: the names of the classes, or None if they are not recorded.
        data: the name of the training data, or None.
        ball: the threat model of the training, or None.
        run: the run folder that it comes from, or None.
        metadata: all metadata of the weights file (docs/file_formats.md).
    """

    model: nn.Module
    model_name: str
    classes: tuple[str, ...] | None = None
    data: str | None = None
    ball: Ball | None = None
    run: Run | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_metadata(source: Path | str) -> dict[str, str]:
    """Return the metadata of the weights in a folder or file, without loading the weights.

    They are empty for files that nuat did not write, and for `module:factory`.
    """
    return {} if _is_factory(source) else read_file_metadata(find_weights(Path(source)))


def load_model(
    source: Path | str,
    model: str | None = None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    device: torch.device | str | None = "cpu",
) -> LoadedModel:
    """Load a trained model, in eval mode.

    Args:
        source: a run folder, a folder that `nuat.save_pretrained` wrote, a weights file, or
            `module:factory`, a function of yours that returns a trained model.
        model: the architecture, such as `resnet18`; needed for weights that nuat did not write.
        classes: number of classes, by default as recorded, or else 10.
        channels: number of image channels, by default as recorded, or else 3.
        device: where to put the model; None chooses cuda if there is one.

    Raises:
        InputError: there are no such weights, they do not fit the model, or they belong to another
            architecture or to other data.
    """
    if _is_factory(source):
        return _load_factory(str(source), model, classes, channels, device)
    path = Path(source)
    weights, metadata = read_weights(find_weights(path))
    check_data(metadata, classes, channels, path)
    recorded = metadata.get("model")
    name = _trusted_name(path, recorded) if model is None else model
    class_names = tuple(json.loads(metadata["classes"])) if "classes" in metadata else None
    classes = classes or len(class_names or range(DEFAULT_CLASSES))
    channels = channels or int(metadata.get("channels", DEFAULT_CHANNELS))
    net = _build(path, name, classes, channels)
    check_architecture(net, name, metadata, path)
    if recorded is None:
        weights = remap_keys(weights, plain_state_dict(net))
    load_weights(net, weights, path, name)
    check_probe(net, metadata, path, name)
    return LoadedModel(
        model=net.to(get_device(device)).eval(),
        model_name=name,
        classes=class_names,
        data=metadata.get("data"),
        ball=parse_ball(metadata["ball"]) if "ball" in metadata else None,
        run=find_run(path),
        metadata={"channels": str(channels)} | metadata | {"model": name},
    )


def _is_factory(source: Path | str) -> bool:
    """Whether `source` is written as `module:factory` and is no existing file."""
    return is_import_path(str(source).partition("(")[0]) and not Path(source).exists()


def _load_factory(
    name: str,
    model: str | None,
    classes: int | None,
    channels: int | None,
    device: torch.device | str | None,
) -> LoadedModel:
    if model is not None:
        raise InputError(f"{name} is a factory, not a weights file: drop --model")
    if name.startswith(PREFIX):
        raise InputError(f"{name} has no robust weights: train it first, with --model {name}")
    channels = channels or DEFAULT_CHANNELS
    net = build_model(name, classes or DEFAULT_CLASSES, channels).to(get_device(device)).eval()
    return LoadedModel(net, name, metadata={"model": name, "channels": str(channels)})


def _trusted_name(path: Path, recorded: str | None) -> str:
    """Return the recorded architecture if it can be built without running unknown code."""
    if recorded is None:
        raise InputError(f"{path} does not record its model: pass --model")
    if is_torch_container(recorded):
        raise InputError(
            f"{path} was trained on a {recorded.rpartition(':')[2]} passed as an object; this name "
            "does not say what its layers are. Name a function that builds it: --model "
            'module:factory, or in Python model="module:factory"'
        )
    if requires_trust(recorded):
        raise InputError(
            f"{path} was trained on {recorded}, which is not part of nuat; loading it runs that "
            f"code. If you trust it, add --model {recorded!r}"
        )
    return recorded


def _build(path: Path, name: str, classes: int, channels: int) -> nn.Module:
    try:
        return build_model(name, classes, channels)
    except InputError as error:
        if name.partition("(")[0].strip() in model_registry or name.startswith(PREFIX):
            raise
        raise InputError(
            f"the model {name} of {path} cannot be built from its name ({error}); name a function "
            "that builds it, --model module:factory, or --import the file that registers it"
        ) from error
