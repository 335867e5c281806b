"""What the name of a model tells: which architecture it is, and whose code builds it."""

from __future__ import annotations

import inspect
from typing import Any

from nuat.config.imports import is_import_path
from nuat.config.parsing import parse_call
from nuat.models.normalize import STATISTICS
from nuat.models.registry import model_registry
from nuat.models.timm_nets import PREFIX

trusted_models: set[str] = set()
"""The texts with `module:name` that the user has asked for in this process."""


def requires_trust(text: str) -> bool:
    """Whether building this model would run code that the user has not asked for in this process.

    Names found in a weights file must be checked: `module:name` could be any function of any
    installed library. The user asks for code by its name, or by passing an object of its class.
    """
    name = text.partition("(")[0].strip()
    is_known = name in model_registry or name.startswith(PREFIX) or text in trusted_models
    return not is_known and is_import_path(name)


def is_torch_container(name: str) -> bool:
    """Whether `name` is a class of torch.nn, such as Sequential, which does not tell its layers."""
    return name.startswith("torch.nn.") and is_import_path(name)


def same_architecture(one: str, other: str) -> bool:
    """Whether two texts name the same architecture; defaults may be written out or left out."""
    return _with_defaults(one) == _with_defaults(other)


def _with_defaults(text: str) -> tuple[str, dict[str, Any]]:
    name, settings = parse_call(text, STATISTICS)
    if name.startswith(PREFIX):
        name = name.partition(".")[0]  # the tag after the dot names pretrained weights
    if name not in model_registry:
        return name, settings
    parameters = inspect.signature(model_registry[name]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    settings = {"normalize": None} | defaults | settings
    settings.pop("channels", None)
    return name, settings
