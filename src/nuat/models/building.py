"""StartAt the name of a network to the network, and back."""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from nuat.config.imports import import_object, import_path, is_import_path
from nuat.config.parsing import parse_call
from nuat.errors import InputError, explain_type_error
from nuat.models.normalize import STATISTICS, Normalized, check_statistics
from nuat.models.registry import model_registry
from nuat.models.timm_nets import PREFIX, build_timm, statistics_of

_built: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_named: set[str] = set()
"""The names of users' own code that were built in this process."""


def build_model(text: str, classes: int, channels: int) -> nn.Module:
    """The network that `text` names, for images of so many channels and so many classes.

    A factory takes `classes`, `channels` and its own settings. `text` is a name out of the table,
    `timm:NAME`, or `module:factory` of the user's own, which takes of `classes` and `channels` what
    it has parameters for. With the setting `normalize=cifar10`, another name of `STATISTICS`, or
    `((mean, ...), (std, ...))` the first layer normalises. For timm's networks that is the default,
    with the statistics they were trained with; `normalize=None` turns it off.

    Raises InputError for an unknown name or setting.
    """
    name, settings = parse_call(text, STATISTICS if "normalize" in text else {})
    try:
        f = _build(name, classes, channels, settings)
    except (TypeError, InputError) as error:
        why = (
            explain_type_error(error, name, model_registry[name])
            if name in model_registry
            else error
        )
        raise InputError(f"cannot build the model {text!r}: {why}") from error
    _built[f] = text
    return f


def _build(name: str, classes: int, channels: int, settings: dict[str, Any]) -> nn.Module:
    default = "its own" if name.startswith(PREFIX) else None
    statistics = settings.pop("normalize", default)
    if name.startswith(PREFIX):
        f = build_timm(name.removeprefix(PREFIX), classes, channels, settings)
    elif name not in model_registry and is_import_path(name):
        f = _own(name, classes, channels, settings)
    else:
        f = model_registry[name](classes=classes, channels=channels, **settings)
    if statistics is None:
        return f
    if statistics == "its own":
        statistics = statistics_of(f, channels)
    return Normalized(f, check_statistics(statistics, channels))


def _own(name: str, classes: int, channels: int, settings: dict[str, Any]) -> nn.Module:
    factory = import_object(name)
    _named.add(name)
    if isinstance(factory, nn.Module):
        return copy.deepcopy(factory)
    if not callable(factory):
        raise InputError(f"{name} is a {type(factory).__name__}, not a function that makes one")
    try:
        f = factory(**_wanted(factory, {"classes": classes, "channels": channels}), **settings)
    except (InputError, TypeError):
        raise
    except Exception as error:  # code of the user's own may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error}".rstrip(": ")
        where = f"{place.filename}, line {place.lineno}"
        raise InputError(f"{name} raised {why} ({where})") from error
    if not isinstance(f, nn.Module):
        raise InputError(f"{name} returns a {type(f).__name__}, not a torch.nn.Module")
    return f


def _wanted(factory: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}


def requires_trust(text: str) -> bool:
    """Whether building this would run code that nobody in this process has named or imported.

    To be asked of names out of files, which may be anybody's: `module:name` could be any function
    of any library. A class of networks that is already imported may be built.
    """
    name = text.partition("(")[0].strip()
    if (
        name in model_registry
        or name.startswith(PREFIX)
        or not is_import_path(name)
        or name in _named
    ):
        return False
    module, _, attribute = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return not (isinstance(found, type) and issubclass(found, nn.Module))


def is_torch_container(name: str) -> bool:
    """Whether this is a class of torch's own, such as Sequential, which anything may be made of."""
    return name.startswith("torch.nn.") and is_import_path(name)


def same_architecture(one: str, other: str) -> bool:
    """Whether two names mean the same network, defaults and spelling aside."""
    return _canonical(one) == _canonical(other)


def _canonical(text: str) -> tuple[str, dict[str, Any]]:
    name, settings = parse_call(text, STATISTICS)
    if name in model_registry:
        parameters = inspect.signature(model_registry[name]).parameters.values()
        defaults = {
            each.name: each.default for each in parameters if each.default is not each.empty
        }
        settings = {"normalize": None} | defaults | settings
        settings.pop("channels", None)
    elif name.startswith(PREFIX):
        name = name.partition(".")[0]
    return name, settings


def model_name(f: nn.Module) -> str:
    """What to write down about a network, so that it can be built again.

    The text that `build` made it from; else `module:Class`; else, for a class that nobody can
    import, its name alone.
    """
    return _built.get(f) or import_path(type(f)) or type(f).__qualname__


def startup_notes(f: nn.Module) -> list[str]:
    """What to tell about a network before it is trained, a line each."""
    lines, name = [], model_name(f)
    if name.startswith(PREFIX) and isinstance(f, Normalized):
        mean, std = (_numbers(values.flatten().tolist()) for values in f.normalize.buffers())
        lines.append(f"{name}: images are normalized in its first layer, mean {mean}, std {std}")
    if is_torch_container(name):
        lines.append(
            f"the network is a {type(f).__name__}, a name that does not say what is in it, so the "
            "run will not open by itself: name a function that builds it then, --model "
            "module:factory"
        )
    elif name not in model_registry and "(" not in name and ":" not in name:
        lines.append(
            f"the network's class {name} cannot be imported, so the run will not open by itself: "
            "name a function that builds it then, --model module:factory"
        )
    return lines


def _numbers(values: list[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
