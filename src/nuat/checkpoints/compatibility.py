"""Whether weights belong into a network, and putting them there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.config.imports import import_path
from nuat.errors import InputError
from nuat.models import model_registry, same_architecture

Weights = Mapping[str, Tensor]


def check_architecture(f: nn.Module, model: str, recorded: str | None, source: object) -> None:
    """Raise InputError unless `model`, which made `f`, is what is recorded beside the weights.

    Different networks may have the same weights by name and shape. Weights that nuat did not write
    record nothing; of a network given as an object only the class is known.
    """
    if recorded is None or same_architecture(model, recorded):
        return
    known = recorded.partition("(")[0] in model_registry or recorded.startswith("timm:")
    if not known and recorded in (import_path(type(f)), type(f).__qualname__):
        return
    raise InputError(
        f"{source} holds weights of {recorded}, not of {model}; weights that fit may still be of "
        f"another function. Use --model {recorded!r}"
    )


def check_data(
    about: Mapping[str, str], classes: int | None, channels: int | None, source: object
) -> None:
    """Raise InputError if the weights are known to be for other images than those asked for.

    None asks for nothing, and what is not written beside the weights is not known.
    """
    known = {"channels": about.get("channels"), "classes": about.get("classes")}
    asked = {"channels": channels, "classes": classes}
    for what, number in asked.items():
        text = known[what]
        if number is None or text is None:
            continue
        there = int(text) if what == "channels" else len(json.loads(text))
        if there != number:
            raise InputError(
                f"{source} is a network for {_counted(there, what)}, but the data have {number}: "
                "name data that fit it"
            )


def _counted(number: int, what: str) -> str:
    if what == "classes":
        return f"{number} classes"
    return "images of 1 channel (grey)" if number == 1 else f"images of {number} channels"


def remap_keys(weights: Weights, f: nn.Module) -> dict[str, Tensor]:
    """Foreign weights under the names of this network.

    Two things are undone: the prefix `module.` of DataParallel, and the lack of `network.` where
    this network stands behind a normalization of its own, which it keeps.
    """
    own, found = f.state_dict(), dict(weights)
    if all(key.startswith("module.") for key in found) and not any(
        key.startswith("module.") for key in own
    ):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    inner = {key for key in own if key.startswith("network.")}
    if inner and not any(key.startswith("network.") for key in found):
        found = {f"network.{key}": value for key, value in found.items()}
        found |= {key: value for key, value in own.items() if key.startswith("normalize.")}
    return found


def incompatible_keys(weights: Weights, own: Weights) -> list[str]:
    """What keeps weights from fitting, a line each."""
    return [
        *(f"{key} is missing" for key in own if key not in weights),
        *(f"{key} is not of this network" for key in weights if key not in own),
        *(
            f"{key} is {list(weights[key].shape)} and should be {list(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ),
        *(
            f"{key} is {_numbers(weights[key])} and should be {_numbers(own[key])}: images were "
            "normalized otherwise"
            for key in own
            if key.startswith("normalize.") and key in weights and _differ(weights[key], own[key])
        ),
    ]


def raise_if_incompatible(wrong: list[str], source: Path | str, model: str) -> None:
    """Raise InputError if anything is wrong, naming the first three things."""
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{source} does not fit {model}: {'; '.join(wrong[:3])}{more}")


def load_weights(f: nn.Module, weights: Weights, source: Path | str, model: str) -> None:
    """Load all weights into the network. Raises InputError if they do not fit."""
    raise_if_incompatible(incompatible_keys(weights, f.state_dict()), source, model)
    f.load_state_dict(weights)


def _differ(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and not torch.allclose(one.cpu(), other.cpu(), atol=1e-4)


def _numbers(values: Tensor) -> str:
    return str([round(value, 4) for value in values.flatten().tolist()])
