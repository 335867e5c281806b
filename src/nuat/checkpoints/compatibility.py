"""Checks that weights belong to a model, and loading them into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nuat.checkpoints.fields import WeightsMetadata
from nuat.errors import InputError
from nuat.models import class_name, model_registry, same_architecture
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict

Weights = Mapping[str, Tensor]
T = TypeVar("T")


def check_architecture(
    model: nn.Module, model_name: str, metadata: Mapping[str, str], source: object
) -> None:
    """Raise InputError unless `model_name` is the architecture that is recorded with the weights.

    Different architectures may have equal state dicts: resnet18 and resnet18-nuat do. Weights that
    nuat did not write have no record; for a model passed as an object the record is its class.
    Functions of the user that build the same class, such as a compiled model and a plain one, are
    the same architecture: the logits of the fixed image tell their settings apart.
    """
    recorded = metadata.get("model")
    if recorded is None or same_architecture(model_name, recorded):
        return
    has_factory = recorded.partition("(")[0] in model_registry or recorded.startswith("timm:")
    if not has_factory and class_name(model) in (recorded, metadata.get("model_class")):
        return
    raise InputError(
        f"{source} holds weights of {recorded}, not of {model_name}; even if the tensors fit, the "
        f"two may compute different functions. Use --model {recorded!r}"
    )


def check_data(
    metadata: WeightsMetadata, classes: int | None, channels: int | None, source: object
) -> None:
    """Raise InputError if the weights are for another number of classes or image channels.

    A number that is None, or that the metadata lack, is not compared.
    """
    if classes is not None and metadata.classes is not None:
        trained = len(metadata.classes)
        if trained != classes:
            raise InputError(
                f"{source} is a model for {trained} classes, but the data have {classes}: pass the "
                "data that it was trained on with --data"
            )
    if channels is not None and metadata.channels is not None:
        trained = metadata.channels
        if trained != channels:
            kind = "1 channel (grayscale)" if trained == 1 else f"{trained} channels"
            raise InputError(
                f"{source} is a model for images of {kind}, but the data have {channels}: pass the "
                "data that it was trained on with --data"
            )


WRAPPER_NAMES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that the wrappers of torch add: data parallelism, torch.compile, FSDP."""


def remap_keys(weights: Weights, own: Weights) -> dict[str, Tensor]:
    """Rename the keys of weights that nuat did not write to those of a model's state dict `own`.

    * The names of wrappers are left out wherever they stand, and so is a prefix that all keys have,
      such as the `model.` of a Lightning module, and the counter of an AveragedModel.
    * Where `num_batches_tracked` of a BatchNorm is missing, as in files of torch before 0.4.1, the
      model's own counter is taken. Only BatchNorm with momentum None uses it, in training.
    * If the model is `Normalized` and the weights are those of the network inside it, the prefix
      `network.` and the model's own statistics are added.
    """
    names = _by_name_without_wrappers({key: key for key in own})
    remapped = _by_name_without_wrappers(weights)
    for key in [key for key in remapped if key.rpartition(".")[2] == "n_averaged"]:
        if key not in names:
            del remapped[key]
    while (prefix := _common_prefix(remapped)) and not _any_starts_with(names, prefix):
        remapped = {key.removeprefix(prefix): value for key, value in remapped.items()}
    if _any_starts_with(names, "network.") and not _any_starts_with(remapped, "network."):
        remapped = {f"network.{key}": value for key, value in remapped.items()}
        remapped |= {key: value for key, value in own.items() if key.startswith("normalize.")}
    for key in names.keys() - remapped.keys():
        layer, _, last = key.rpartition("num_batches_tracked")
        if not last and f"{layer}running_mean" in remapped:
            remapped[key] = own[names[key]]
    return {names.get(key, key): value for key, value in remapped.items()}


def _by_name_without_wrappers(entries: Mapping[str, T]) -> dict[str, T]:
    """Leave out the names of wrappers from all keys, unless two keys would then be the same."""
    renamed = {
        ".".join(part for part in key.split(".") if part not in WRAPPER_NAMES): value
        for key, value in entries.items()
    }
    return renamed if len(renamed) == len(entries) else dict(entries)


def _common_prefix(weights: Weights) -> str:
    """Return the first part of the names, with its dot, if all names have it; otherwise ""."""
    first = {key.partition(".")[0] if "." in key else "" for key in weights}
    return f"{first.pop()}." if len(first) == 1 and "" not in first else ""


def _any_starts_with(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def incompatible_keys(weights: Weights, own: Weights) -> list[str]:
    """Return what keeps `weights` from fitting the state dict `own`, one phrase per tensor.

    Unlike `load_state_dict(strict=True)` it leaves the model unchanged, gives phrases for one line,
    and compares the statistics of the normalization, which fit by shape whatever they are.
    """
    pairs = {key: (weights[key], own[key]) for key in own if key in weights}
    statistics = [
        f"{key} is {_rounded(given)}, not {_rounded(needed)}: the weights were trained with "
        "another normalization"
        for key, (given, needed) in pairs.items()
        if key.startswith("normalize.")
        and given.shape == needed.shape
        and not torch.allclose(given.cpu(), needed.cpu(), atol=1e-4)
    ]
    return [*incompatible_shapes(weights, own), *statistics]


def incompatible_shapes(weights: Weights, own: Weights) -> list[str]:
    """Return which tensors are missing, too many or of another shape, one phrase per tensor."""
    missing = [f"{key} is missing" for key in own if key not in weights]
    unexpected = [f"the model has no {key}" for key in weights if key not in own]
    shapes = [
        f"{key} has shape {list(weights[key].shape)}, not {list(needed.shape)}"
        for key, needed in own.items()
        if key in weights and weights[key].shape != needed.shape
    ]
    return [*missing, *unexpected, *shapes]


def raise_if_incompatible(problems: list[str], source: object, model_name: str) -> None:
    """Raise InputError if there are problems, naming the first three."""
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{source} does not fit {model_name}: {'; '.join(problems[:3])}{more}")


def load_weights(model: nn.Module, weights: Weights, source: object, model_name: str) -> None:
    """Load all weights into the model. Raises InputError if they do not fit."""
    own = plain_state_dict(model)
    raise_if_incompatible(incompatible_keys(weights, own), source, model_name)
    try:
        load_plain_state_dict(model, weights)
    except (RuntimeError, NotImplementedError) as error:  # such as sparse or quantized tensors
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{source} does not fit {model_name}: {reason}") from None


def _rounded(values: Tensor) -> str:
    return str([round(value, 4) for value in values.flatten().tolist()])
