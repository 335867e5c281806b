"""Fine-tuning: start from weights that were trained elsewhere, with a new head if need be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nuat.checkpoints.compatibility import (
    check_architecture,
    check_data,
    incompatible_keys,
    raise_if_incompatible,
    remap_keys,
)
from nuat.checkpoints.files import read
from nuat.checkpoints.run import Run
from nuat.config.parsing import parse_call
from nuat.errors import InputError
from nuat.models import model_name
from nuat.models.normalize import STATISTICS
from nuat.models.timm_nets import PREFIX, pretrained_weights
from nuat.nn.fingerprint import digest


@dataclass(frozen=True)
class InitialWeights:
    """What a network starts from: the weights that are taken, and what stays as it was drawn."""

    source: str
    taken: Mapping[str, Tensor]
    new: tuple[str, ...]
    classes: tuple[int, int]

    @property
    def fingerprint(self) -> str:
        """A hash of the weights that are taken."""
        return digest(self.taken)

    def into(self, f: nn.Module) -> None:
        """Put the weights into the network."""
        f.load_state_dict(self.taken, strict=False)

    def __str__(self) -> str:
        there, here = self.classes
        total = len(self.taken) + len(self.new)
        if not self.new:
            return f"starting from {self.source}: all {total} tensors, the head among them"
        return (
            f"starting from {self.source}: {len(self.taken)} of {total} tensors; new, for {here} "
            f"classes instead of {there}: {', '.join(self.new)}"
        )


def load_initial_weights(
    init: Path | str, f: nn.Module, classes: int, channels: int
) -> InitialWeights:
    """What `f`, for so many classes and channels, takes from `init`. Changes nothing.

    `init` is a run folder, a weights file, `pretrained` for the weights that timm has for this
    network, or `timm:NAME` for those of that name. Only the head may differ, that is the tensors
    whose first axis counts the classes; every other one must fit.

    Raises InputError if the weights are of another network, or not finite.
    """
    model = model_name(f)
    if str(init) == "pretrained" or str(init).startswith(PREFIX):
        weights, recorded = _from_timm(str(init), model, channels)
    else:
        weights, about = read(Path(init))
        recorded = about.get("model")
        check_data(about, None, channels, init)
    check_architecture(f, model, recorded, init)
    return _start(str(init), weights if recorded else remap_keys(weights, f), f, model, classes)


def resolve_init(
    init: Path | str | None, f: nn.Module, classes: int, channels: int, folder: Path
) -> tuple[InitialWeights | None, dict[str, str]]:
    """What a run in `folder` starts from, and what its config.json says about that.

    A run that is under way needs the weights it started from no more.
    """
    if init is None:
        return None, {}
    run = Run(folder)
    if run.has_checkpoint and not Path(init).exists():
        known = run.config
        if known.get("init_from") == str(init):
            return None, {key: known[key] for key in ("init", "init_from")}
    start = load_initial_weights(init, f, classes, channels)
    return start, {"init": start.fingerprint, "init_from": start.source}


def _start(
    source: str, weights: Mapping[str, Tensor], f: nn.Module, model: str, k: int
) -> InitialWeights:
    own = f.state_dict()
    new = tuple(key for key in own if key in weights and _of_head(weights[key], own[key], k))
    taken = {key: value for key, value in weights.items() if key not in new}
    raise_if_incompatible(
        incompatible_keys(taken, {key: v for key, v in own.items() if key not in new}),
        source,
        model,
    )
    if len(new) == len(own):
        raise InputError(f"{source} has nothing to start {model} from but a head of other classes")
    broken = [key for key, value in taken.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{source} cannot be started from: {broken[0]} is NaN or infinite")
    there = len(weights[new[0]]) if new else k
    return InitialWeights(source, taken, new, (there, k))


def _of_head(there: Tensor, here: Tensor, classes: int) -> bool:
    other = there.shape != here.shape and there.ndim == here.ndim > 0
    return other and len(here) == classes and there.shape[1:] == here.shape[1:]


def _from_timm(init: str, model: str, channels: int) -> tuple[dict[str, Tensor], str | None]:
    if not model.startswith(PREFIX):
        raise InputError(f"{init!r} is for timm's networks, such as timm:resnet18, not for {model}")
    own_name, settings = parse_call(model, STATISTICS)
    settings.pop("normalize", None)
    name = own_name if init == "pretrained" else init
    if re.sub(r"\..*", "", name) != re.sub(r"\..*", "", own_name):
        raise InputError(f"{init} is not {model}: use --model {init.partition('.')[0]}")
    return pretrained_weights(name.removeprefix(PREFIX), channels, settings), None
