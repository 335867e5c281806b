"""Checks that weights belong to a model, and loading them into it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nuat.config.imports import import_path
from nuat.errors import InputError
from nuat.models import model_registry, same_architecture

Weights = Mapping[str, Tensor]


def check_architecture(
    model: nn.Module, model_name: str, recorded: str | None, source: object
) -> None:
    """Raise InputError unless `model_name` is the architecture that is recorded with the weights.

    Different architectures may have equal state dicts: resnet18 and resnet18-nuat do. Weights that
    nuat did not write have no record; for a model passed as an object the record is its class.
    """
    if recorded is None or same_architecture(model_name, recorded):
        return
    has_factory = recorded.partition("(")[0] in model_registry or recorded.startswith("timm:")
    if not has_factory and recorded in (import_path(type(model)), type(model).__qualname__):
        return
    raise InputError(
        f"{source} holds weights of {recorded}, not of {model_name}; even if the tensors fit, the "
        f"two may compute different functions. Use --model {recorded!r}"
    )


def check_data(
    metadata: Mapping[str, str], classes: int | None, channels: int | None, source: object
) -> None:
    """Raise InputError if the weights are for another number of classes or image channels.

    A number that is None, or that the metadata lack, is not compared.
    """
    if classes is not None and "classes" in metadata:
        trained = len(json.loads(metadata["classes"]))
        if trained != classes:
            raise InputError(
                f"{source} is a model for {trained} classes, but the data have {classes}: name the "
                "data that it was trained on"
            )
    if channels is not None and "channels" in metadata:
        trained = int(metadata["channels"])
        if trained != channels:
            kind = "1 channel (grayscale)" if trained == 1 else f"{trained} channels"
            raise InputError(
                f"{source} is a model for images of {kind}, but the data have {channels}: name the "
                "data that it was trained on"
            )


def remap_keys(weights: Weights, model: nn.Module) -> dict[str, Tensor]:
    """Rename the keys of weights that nuat did not write to those of `model`.

    It strips the prefix `module.` of DataParallel. If the model is `Normalized` and the weights are
    those of the network inside it, it adds the prefix `network.` and the model's own statistics.
    """
    own, remapped = model.state_dict(), dict(weights)
    if all(key.startswith("module.") for key in remapped) and not any(
        key.startswith("module.") for key in own
    ):
        remapped = {key.removeprefix("module."): value for key, value in remapped.items()}
    is_normalized = any(key.startswith("network.") for key in own)
    if is_normalized and not any(key.startswith("network.") for key in remapped):
        remapped = {f"network.{key}": value for key, value in remapped.items()}
        remapped |= {key: value for key, value in own.items() if key.startswith("normalize.")}
    return remapped


def incompatible_keys(weights: Weights, own: Weights) -> list[str]:
    """Return what keeps `weights` from fitting the state dict `own`, one phrase per tensor.

    Unlike `load_state_dict(strict=True)` it leaves the model unchanged, gives phrases for one line,
    and compares the statistics of the normalization, which fit by shape whatever they are.
    """
    missing = [f"{key} is missing" for key in own if key not in weights]
    unexpected = [f"the model has no {key}" for key in weights if key not in own]
    pairs = {key: (weights[key], own[key]) for key in own if key in weights}
    shapes = [
        f"{key} has shape {list(given.shape)}, not {list(needed.shape)}"
        for key, (given, needed) in pairs.items()
        if given.shape != needed.shape
    ]
    statistics = [
        f"{key} is {_rounded(given)}, not {_rounded(needed)}: the weights were trained with "
        "another normalization"
        for key, (given, needed) in pairs.items()
        if key.startswith("normalize.")
        and given.shape == needed.shape
        and not torch.allclose(given.cpu(), needed.cpu(), atol=1e-4)
    ]
    return [*missing, *unexpected, *shapes, *statistics]


def raise_if_incompatible(problems: list[str], source: object, model_name: str) -> None:
    """Raise InputError if there are problems, naming the first three."""
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{source} does not fit {model_name}: {'; '.join(problems[:3])}{more}")


def load_weights(model: nn.Module, weights: Weights, source: object, model_name: str) -> None:
    """Load all weights into the model. Raises InputError if they do not fit."""
    raise_if_incompatible(incompatible_keys(weights, model.state_dict()), source, model_name)
    model.load_state_dict(weights)


def _rounded(values: Tensor) -> str:
    return str([round(value, 4) for value in values.flatten().tolist()])
