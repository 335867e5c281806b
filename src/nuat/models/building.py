"""Building a model from its name, and naming a model that was built."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from nuat.config.imports import import_object, import_path, is_import_path
from nuat.config.parsing import parse_call
from nuat.errors import InputError, check_positive_int, explain_type_error
from nuat.models.architecture import is_torch_container, trusted_models
from nuat.models.normalize import STATISTICS, Normalized, check_statistics
from nuat.models.registry import model_registry
from nuat.models.timm_nets import PREFIX, build_timm, timm_statistics
from nuat.nn.state_dict import innermost_model
from nuat.numbers import plain

_built_from: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""For each model that `build_model` returned, the text that it was built from."""


def build_model(text: str, classes: int, channels: int) -> nn.Module:
    """Build a model that maps images [B, channels, H, W] in [0, 1] to logits [B, classes].

    Args:
        text: a registered name (`nuat.list_models`), `timm:NAME`, or `module:factory` for a
            function of yours, with settings in parentheses, such as `resnet18(width=32)`. Your
            function receives `classes` and `channels` if it has parameters of these names. The
            setting `normalize` adds a first layer that normalizes the images: `cifar10` or another
            name of `STATISTICS`, or `((mean, ...), (std, ...))`. By default only timm's models have
            one, with the statistics that they were trained with; `normalize=None` removes it.
        classes: the number of classes.
        channels: the number of image channels.

    Raises:
        InputError: the name or a setting is unknown or has a wrong value.

    >>> model = nuat.build_model("small-cnn(width=16)", classes=10, channels=1)
    >>> model(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    classes, channels = plain(classes), plain(channels)
    check_positive_int("classes", classes)
    check_positive_int("channels", channels)
    name, settings = parse_call(text, STATISTICS if "normalize" in text else {})
    try:
        model = _build(name, classes, channels, settings)
    except (TypeError, InputError) as error:
        reason: object = error
        if name in model_registry:
            reason = explain_type_error(error, name, model_registry[name])
        raise InputError(f"cannot build the model {text!r}: {reason}") from error
    _built_from[model] = text
    trusted_models.add(text)
    return model


def model_name(model: nn.Module) -> str:
    """Return the name under which a model is recorded.

    It is the text that `build_model` built it from; for any other model its import path,
    `module:Class`; for a class that cannot be imported, the name of the class.
    """
    name = _built_from.get(model) or _built_from.get(innermost_model(model)) or class_name(model)
    trusted_models.add(name)
    return name


def class_name(model: nn.Module) -> str:
    """Return the import path of the class of a model, or its name if it cannot be imported.

    The wrappers of torch.compile and of data parallelism do not count: it is the class inside.
    """
    cls = type(innermost_model(model))
    return import_path(cls) or cls.__qualname__


def normalization_notes(model: nn.Module) -> list[str]:
    """Return one line with the mean and standard deviation of the setting `normalize`, if any."""
    if not isinstance(model, Normalized):
        return []
    mean, std = (_format(values.flatten().tolist()) for values in model.normalize.buffers())
    return [f"{model_name(model)}: the first layer normalizes the images, mean {mean}, std {std}"]


def startup_notes(model: nn.Module) -> list[str]:
    """Return what the user should know about a model before training, one line each."""
    notes, name = normalization_notes(model), model_name(model)
    reopen = (
        "so the run can be reopened only with a function that builds the model: "
        "--model module:factory"
    )
    if is_torch_container(name):
        kind = type(innermost_model(model)).__name__
        notes.append(f"the model is a {kind}, and this name does not tell its layers, {reopen}")
    elif name not in model_registry and "(" not in name and ":" not in name:
        notes.append(f"the model's class {name} cannot be imported, {reopen}")
    return notes


def _build(name: str, classes: int, channels: int, settings: dict[str, Any]) -> nn.Module:
    is_timm = name.startswith(PREFIX)
    statistics = settings.pop("normalize", "as trained" if is_timm else None)
    if is_timm:
        model = build_timm(name.removeprefix(PREFIX), classes, channels, settings)
    elif name not in model_registry and is_import_path(name):
        model = _build_user_model(name, classes, channels, settings)
    else:
        model = model_registry[name](classes=classes, channels=channels, **settings)
    if statistics is None:
        return model
    if is_timm and statistics == "as trained":
        statistics = timm_statistics(model, channels)
    return Normalized(model, check_statistics(statistics, channels))


def _build_user_model(
    name: str, classes: int, channels: int, settings: dict[str, Any]
) -> nn.Module:
    factory = import_object(name)
    if isinstance(factory, nn.Module):
        return copy.deepcopy(factory)
    if not callable(factory):
        raise InputError(
            f"{name} is a {type(factory).__name__}, not a model or a function that returns one"
        )
    try:
        model = factory(**_accepted(factory, classes=classes, channels=channels), **settings)
    except (InputError, TypeError):
        raise
    except Exception as error:  # the user's code may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise InputError(
            f"{name} raised {reason} ({frame.filename}, line {frame.lineno})"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returns a {type(model).__name__}, not a torch.nn.Module")
    return model


def _accepted(factory: Callable[..., Any], **offered: int) -> dict[str, int]:
    """Return those of the offered arguments that the factory has parameters for."""
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}


def _format(values: list[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
