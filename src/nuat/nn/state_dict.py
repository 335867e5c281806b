"""State dicts with plain names: those that a model has outside of torch's wrappers.

torch.compile, DataParallel and DistributedDataParallel put the model into a wrapper, which adds a
part to the names of its weights: `_orig_mod.` or `module.`. Everything that nuat writes has the
names without these parts, so that it loads into the model with or without a wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def innermost_model(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and of data parallelism."""
    while name := _wrapped_name(model):
        model = model.get_submodule(name)
    return model


def plain_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a model with plain names, also where only a part is wrapped."""
    prefixes = _wrapper_prefixes(model)
    return {_plain_name(name, prefixes): value for name, value in model.state_dict().items()}


def load_plain_state_dict(
    model: nn.Module, weights: Mapping[str, Tensor], strict: bool = True
) -> None:
    """Load a state dict with plain names into a model, which may be wrapped."""
    prefixes = _wrapper_prefixes(model)
    names = {_plain_name(name, prefixes): name for name in model.state_dict()}
    model.load_state_dict({names.get(key, key): value for key, value in weights.items()}, strict)


def _wrapped_name(module: nn.Module) -> str:
    """Return the attribute that holds the model of a wrapper; "" for any other module."""
    if isinstance(module, DataParallel | DistributedDataParallel):
        return "module"
    # the class of compiled modules is private, and importing it takes seconds
    return "_orig_mod" if "_orig_mod" in dict(module.named_children()) else ""


def _wrapper_prefixes(model: nn.Module) -> list[tuple[str, str]]:
    """Return for each wrapper inside `model`, deepest first, its prefix and that of its model."""
    found = []
    for name, module in model.named_modules(remove_duplicate=False):
        if wrapped := _wrapped_name(module):
            outer = f"{name}." if name else ""
            found.append((outer, f"{outer}{wrapped}."))
    return sorted(found, key=lambda prefixes: len(prefixes[0]), reverse=True)


def _plain_name(name: str, prefixes: list[tuple[str, str]]) -> str:
    for outer, inner in prefixes:
        if name.startswith(inner):
            name = outer + name.removeprefix(inner)
    return name
