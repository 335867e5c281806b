"""Loading a trained model from a run folder, a weights file, or the user's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.checkpoints.compatibility import (
    check_architecture,
    check_data,
    incompatible_shapes,
    load_weights,
    raise_if_incompatible,
    remap_keys,
)
from nuat.checkpoints.fields import parse_metadata
from nuat.checkpoints.probe import check_probe
from nuat.checkpoints.run import Run, find_run, find_weights
from nuat.checkpoints.weights_io import read_file_metadata, read_weights
from nuat.config.imports import is_import_path
from nuat.config.parsing import parse_call
from nuat.errors import InputError
from nuat.models import build_model, is_torch_container, model_registry, requires_trust
from nuat.models.class_names import record_class_names
from nuat.models.normalize import STATISTICS
from nuat.models.timm_nets import PREFIX
from nuat.nn.state_dict import plain_state_dict
from nuat.numbers import plain
from nuat.runtime.device import get_device
from nuat.threat_models import Ball

DEFAULT_CLASSES, DEFAULT_CHANNELS = 10, 3

MAX_SETTING = 10_000
"""The largest number, such as a width, that a model's name in a file may contain."""


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
        source: a run folder, a folder that `nuat.save_pretrained` wrote, a weights file, a model
            that comes with nuat, such as `nuat:digits/nuat-wa`, or `module:factory`, a function of
            yours that returns a trained model.
        model: the architecture, such as `resnet18`; needed for weights that nuat did not write.
        classes: number of classes, by default as recorded, or else 10.
        channels: number of image channels, by default as recorded, or else 3.
        device: where to put the model; None chooses cuda if there is one.

    Raises:
        InputError: there are no such weights, they do not fit the model, or they belong to another
            architecture or to other data.

    >>> model = nuat.build_model("small-cnn(width=4)", classes=10, channels=1)
    >>> torch.save(model.state_dict(), "weights.pt")
    >>> loaded = nuat.load_model("weights.pt", model="small-cnn(width=4)", channels=1)
    >>> x = torch.rand(2, 1, 8, 8)
    >>> torch.equal(loaded.model(x), model.eval()(x))
    True
    """
    classes, channels = plain(classes), plain(channels)
    if model is not None and not isinstance(model, str):
        raise InputError(
            f"model is a {type(model).__name__}, but must be a name such as 'resnet18', or "
            "'module:factory' for a network of your own"
        )
    if _is_factory(source):
        return _load_factory(str(source), model, classes, channels, device)
    path = Path(source)
    weights, metadata = read_weights(find_weights(path))
    parsed = parse_metadata(metadata, path)
    check_data(parsed, classes, channels, path)
    recorded = parsed.model
    name = _trusted_name(path, recorded) if model is None else model
    classes = classes or len(parsed.classes or range(DEFAULT_CLASSES))
    channels = channels or parsed.channels or DEFAULT_CHANNELS
    if model is None:
        _check_recorded_model(path, name, classes, channels, weights)
    net = _build(path, name, classes, channels)
    check_architecture(net, name, metadata, path)
    if recorded is None:
        weights = remap_keys(weights, plain_state_dict(net))
    load_weights(net, weights, path, name)
    check_probe(net, parsed, path, name)
    if parsed.classes is not None:
        record_class_names(net, parsed.classes)
    return LoadedModel(
        model=net.to(get_device(device)).eval(),
        model_name=name,
        classes=parsed.classes,
        data=parsed.data,
        ball=parsed.ball,
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


def _check_recorded_model(
    path: Path, name: str, classes: int, channels: int, weights: Mapping[str, Tensor]
) -> None:
    """Raise InputError if the settings in a recorded name are absurd or do not fit the weights.

    A model of nuat is built without memory for its weights first, so that a file cannot ask for
    more memory than its own weights take.
    """
    text, settings = parse_call(name, STATISTICS)
    for key, value in settings.items():
        if isinstance(value, int | float) and not abs(value) <= MAX_SETTING:
            raise InputError(f"{path}: {key} of the model is {value}, but is at most {MAX_SETTING}")
    if getattr(model_registry.get(text), "__module__", "").startswith("nuat."):
        with torch.device("meta"):
            own = _build(path, name, classes, channels).state_dict()
        raise_if_incompatible(incompatible_shapes(weights, own), path, name)


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
    except Exception as error:  # timm raises errors of any kind for settings that are wrong
        if not name.startswith(PREFIX):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"the model {name} of {path} cannot be built: {reason}") from error
