"""Fine-tuning: training that starts from existing weights, with a new head for other classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from nuat.checkpoints.fields import ONLY_WITH_INIT, parse_metadata
from nuat.checkpoints.run import Run, find_weights
from nuat.checkpoints.weights_io import read_weights
from nuat.config.parsing import parse_call
from nuat.data.image_folder import summarize
from nuat.errors import InputError
from nuat.models import model_name
from nuat.models.normalize import STATISTICS
from nuat.models.timm_nets import PREFIX, pretrained_weights
from nuat.nn.fingerprint import digest
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict


@dataclass(frozen=True)
class InitialWeights:
    """The weights that training starts from.

    Attributes:
        source: the run folder, the file, or the name of timm's weights.
        weights: the tensors that are loaded.
        new_keys: the tensors of the head, which keep their random initialization.
        source_classes, classes: the number of classes of the source, and of the new model.
        class_names: the names of the source's classes by label, or None if they are not recorded.
    """

    source: str
    weights: Mapping[str, Tensor]
    new_keys: tuple[str, ...]
    source_classes: int
    classes: int
    class_names: tuple[str, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of the tensors that are loaded."""
        return digest(self.weights)

    def apply(self, model: nn.Module) -> None:
        """Load the weights into the model."""
        load_plain_state_dict(model, self.weights, strict=False)

    def notes(self, classes: Sequence[str]) -> list[str]:
        """Describe for the user what is loaded, and whether the head is for other `classes`."""
        notes = [str(self)]
        if not self.new_keys and self.class_names not in (None, tuple(classes)):
            assert self.class_names is not None
            notes.append(
                f"the head of {self.source} is for the classes {summarize(self.class_names)}; it "
                f"is kept, and trained for {summarize(classes)}"
            )
        return notes

    def __str__(self) -> str:
        """Describe what is loaded and what is new, in one line for the user."""
        total = len(self.weights) + len(self.new_keys)
        if not self.new_keys:
            return f"starting from {self.source}: all {total} tensors, including the head"
        return (
            f"starting from {self.source}: {len(self.weights)} of {total} tensors; new head for "
            f"{self.classes} classes instead of {self.source_classes}: {', '.join(self.new_keys)}"
        )


def load_initial_weights(
    init: Path | str, model: nn.Module, classes: int, channels: int
) -> InitialWeights:
    """Read the weights that `model` should start from, without changing the model.

    Only the head may differ, that is the tensors whose first axis has the length of `classes`;
    every other tensor must fit.

    Args:
        init: a run folder; a weights file; `pretrained` for timm's weights of this architecture; or
            `timm:NAME` for timm's weights of that name.
        model: the model to initialize.
        classes: number of classes of the new data.
        channels: number of image channels of the new data.

    Raises:
        InputError: the weights are of another model, or not finite.
    """
    name = model_name(model)
    if str(init) == "pretrained" or str(init).startswith(PREFIX):
        weights = _timm_weights(str(init), name, channels)
        metadata: dict[str, str] = {}
        names = None
    else:
        weights, metadata = read_weights(find_weights(Path(init)))
        parsed = parse_metadata(metadata, init)
        names = parsed.classes
        check_data(parsed, None, channels, init)
    check_architecture(model, name, metadata, init)
    own = plain_state_dict(model)
    if "model" not in metadata:
        weights = remap_keys(weights, own)
    return replace(_split_head(str(init), weights, own, name, classes), class_names=names)


def resolve_init(
    init: Path | str | None, model: nn.Module, classes: int, channels: int, folder: Path
) -> tuple[InitialWeights | None, dict[str, str]]:
    """Return the initial weights of the run in `folder`, and the config fields that record them.

    A run that has a checkpoint does not need its initial weights any more: if their file is gone,
    the recorded fields are returned without weights.
    """
    if init is None:
        return None, {}
    run = Run(folder)
    if run.has_checkpoint and not Path(init).exists():
        config = run.config
        if config.get("init_from") == str(init):
            return None, {key: config[key] for key in ONLY_WITH_INIT if key in config}
    initial = load_initial_weights(init, model, classes, channels)
    return initial, {"init": initial.fingerprint, "init_from": initial.source}


def _split_head(
    source: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, classes: int
) -> InitialWeights:
    """Split off a head of another number of classes, and check everything else."""
    new_keys = tuple(
        key for key in own if key in weights and _is_other_head(weights[key], own[key], classes)
    )
    kept = {key: value for key, value in weights.items() if key not in new_keys}
    needed = {key: value for key, value in own.items() if key not in new_keys}
    raise_if_incompatible(incompatible_keys(kept, needed), source, name)
    if not needed:
        raise InputError(
            f"{source} holds nothing for {name} but a head for another number of classes"
        )
    for key, value in kept.items():
        if not torch.isfinite(value).all():
            raise InputError(f"training cannot start from {source}: {key} is NaN or infinite")
    source_classes = len(weights[new_keys[0]]) if new_keys else classes
    return InitialWeights(source, kept, new_keys, source_classes, classes)


def _is_other_head(given: Tensor, own: Tensor, classes: int) -> bool:
    """Whether the tensors differ in nothing but the length of the class axis, the first one."""
    if given.shape == own.shape or given.ndim != own.ndim or own.ndim == 0:
        return False
    return len(own) == classes and given.shape[1:] == own.shape[1:]


def _timm_weights(init: str, name: str, channels: int) -> dict[str, Tensor]:
    if not name.startswith(PREFIX):
        raise InputError(f"{init!r} is for timm's models, such as timm:resnet18, not for {name}")
    own_name, settings = parse_call(name, STATISTICS)
    settings.pop("normalize", None)
    wanted = own_name if init == "pretrained" else init
    if _architecture(wanted) != _architecture(own_name):
        raise InputError(f"{init} is not {name}: use --model {_architecture(init)}")
    return pretrained_weights(wanted.removeprefix(PREFIX), channels, settings)


def _architecture(name: str) -> str:
    """Drop the tag of timm's weights: `timm:resnet18.a1_in1k` -> `timm:resnet18`."""
    return re.sub(r"\..*", "", name)
