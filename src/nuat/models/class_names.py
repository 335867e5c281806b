"""The names of the classes that a model was trained on, by label."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from torch import nn

from nuat.nn.state_dict import innermost_model

_class_names: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()


def record_class_names(model: nn.Module, classes: Sequence[str]) -> None:
    """Remember the classes of a model that was trained or loaded in this process."""
    _class_names[innermost_model(model)] = tuple(classes)


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Return the classes of a model, by label, or None if they are not known."""
    return _class_names.get(innermost_model(model))
