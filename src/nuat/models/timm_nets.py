"""Networks of timm, `timm:NAME`, through the `vision` extra."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.models.normalize import Statistics

PREFIX = "timm:"


def timm() -> Any:
    """The module timm. Raises InputError that says what to install if it cannot be imported."""
    module, why_not = _imported()
    if why_not is not None:
        raise InputError(why_not)
    return module


@functools.cache
def _imported() -> tuple[Any, str | None]:
    # once: a second attempt at a torchvision that failed half-way fails in another way
    try:
        import timm as module
    except ModuleNotFoundError as error:
        return None, (
            f"timm: networks need the vision extra, and there is no {error.name}: "
            "pip install 'nuat[vision]'"
        )
    except (ImportError, RuntimeError, OSError) as error:
        return None, (
            f"torchvision cannot be imported beside torch {torch.__version__} "
            f"({str(error).splitlines()[0]}): it was built for another torch. Install both from "
            "one index; for a machine without GPU: pip install --force-reinstall torch "
            "torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
    return module, None


def build_timm(name: str, classes: int, channels: int, settings: Mapping[str, Any]) -> nn.Module:
    """The network of timm of this name, without its pretrained weights. Raises InputError."""
    for setting in ("pretrained", "checkpoint_path"):
        if setting in settings:
            raise InputError(f"weights come in with --init, not with the setting {setting}")
    return _create(name, num_classes=classes, in_chans=channels, **settings)


def pretrained(name: str, channels: int, settings: Mapping[str, Any]) -> nn.Module:
    """The network of this name with timm's pretrained weights, and as many classes as they have.

    Raises InputError if there are none, or they cannot be had.
    """
    _check_name(name)
    if not timm().models.is_model_pretrained(name):
        raise InputError(f"timm has no pretrained weights for {name}")
    try:
        return _create(name, pretrained=True, in_chans=channels, **settings)
    except InputError:
        raise
    except Exception as error:  # whatever stands between this machine and the weights
        raise InputError(
            f"timm cannot get the weights of {name}: {str(error).splitlines()[0]}. Without the "
            "internet, give their file: --init FILE.safetensors"
        ) from error


def pretrained_weights(name: str, channels: int, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of `pretrained`."""
    return pretrained(name, channels, settings).state_dict()


def statistics_of(f: nn.Module, channels: int) -> Statistics:
    """The mean and std that a timm network was trained with; for grey images, their averages.

    Raises InputError for other numbers of channels.
    """
    config: Any = f.pretrained_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels == len(mean):
        return mean, std
    if channels != 1:
        raise InputError(
            f"timm knows mean and deviation of {len(mean)} channels, and the images have "
            f"{channels}: give normalize=((mean, ...), (std, ...)), or normalize=None"
        )
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def _create(name: str, **settings: Any) -> nn.Module:
    _check_name(name)
    try:
        network: nn.Module = timm().create_model(name, **settings)
    except TypeError as error:
        raise InputError(f"timm's {name} does not take these settings: {error}") from None
    return network


def _check_name(name: str) -> None:
    architecture = name.partition(".")[0]
    if not timm().is_model(architecture):
        near = get_close_matches(architecture, timm().list_models(), n=3, cutoff=0.6)
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"timm has no network {architecture!r}{guess} (see timm.list_models())")
