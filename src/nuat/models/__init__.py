"""Networks by name: `build("small-cnn(width=32)", classes=10, channels=1)`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from nuat.errors import InputError
from nuat.models.small import SmallCNN
from nuat.notation import split
from nuat.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")
models.register("small-cnn", SmallCNN)


def build(text: str, classes: int, channels: int) -> nn.Module:
    """The network that `text` names, for images of so many channels and so many classes.

    A factory takes `classes`, `channels` and its own settings. Raises InputError for an unknown
    name or setting.
    """
    name, settings = split(text)
    factory = models[name]
    try:
        return factory(classes=classes, channels=channels, **settings)
    except TypeError as error:
        raise InputError(f"cannot build the model {text!r}: {error}") from None


__all__ = ["SmallCNN", "build", "models"]
