"""Models of timm, named `timm:NAME`; they need the `vision` extra."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.models.normalize import Statistics
from nuat.runtime.extras import import_extra

PREFIX = "timm:"


def import_timm() -> Any:
    """Return the module timm. Raises InputError with the fix if it cannot be imported."""
    module, failure = _import_once()
    if failure is not None:
        raise InputError(failure)
    return module


@functools.cache
def _import_once() -> tuple[Any, str | None]:
    # cached, because a second import of a half-imported torchvision fails with a misleading error
    try:
        return import_extra("vision", "timm:", "timm"), None
    except InputError as error:
        return None, str(error)
    except (ImportError, RuntimeError, OSError) as error:
        return None, (
            f"torchvision cannot be imported with torch {torch.__version__} "
            f"({str(error).splitlines()[0]}): it was built for another torch. Install both from "
            "one index; for a machine without a GPU: pip install --force-reinstall torch "
            "torchvision --index-url https://download.pytorch.org/whl/cpu"
        )


def build_timm(name: str, classes: int, channels: int, settings: Mapping[str, Any]) -> nn.Module:
    """Build timm's model `name` without pretrained weights. Raises InputError if it cannot."""
    for setting in ("pretrained", "checkpoint_path"):
        if setting in settings:
            raise InputError(f"weights are loaded with --init, not with the setting {setting}")
    return _create(name, num_classes=classes, in_chans=channels, **settings)


def pretrained_weights(name: str, channels: int, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of timm's pretrained model `name`, with the head it was trained with.

    Raises:
        InputError: timm has no such weights, or they cannot be downloaded.
    """
    _check_name(name)
    if not import_timm().models.is_model_pretrained(name):
        raise InputError(f"timm has no pretrained weights for {name}")
    try:
        return _create(name, pretrained=True, in_chans=channels, **settings).state_dict()
    except InputError:
        raise
    except Exception as error:  # the download may fail in any way
        raise InputError(
            f"timm cannot get the weights of {name}: {str(error).splitlines()[0]}. Without an "
            "internet connection, pass their file: --init FILE.safetensors"
        ) from error


def timm_statistics(model: nn.Module, channels: int) -> Statistics:
    """Return the mean and std that a timm model was trained with.

    For grayscale images they are averaged over the channels. Raises InputError for any other number
    of channels.
    """
    config: Any = model.pretrained_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels == len(mean):
        return mean, std
    if channels != 1:
        raise InputError(
            f"timm has the mean and standard deviation of {len(mean)} channels, but the images "
            f"have {channels}: set normalize=((mean, ...), (std, ...)), or normalize=None"
        )
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def _create(name: str, **settings: Any) -> nn.Module:
    _check_name(name)
    try:
        model: nn.Module = import_timm().create_model(name, **settings)
    except TypeError as error:
        raise InputError(f"timm's {name} does not take these settings: {error}") from None
    return model


def _check_name(name: str) -> None:
    architecture = name.partition(".")[0]
    if not import_timm().is_model(architecture):
        near = get_close_matches(architecture, import_timm().list_models(), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"timm has no model {architecture!r}{hint} (see timm.list_models())")
