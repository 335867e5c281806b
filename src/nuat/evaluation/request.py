"""The request of an evaluation: its arguments, checked and resolved before anything is attacked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nuat.attacks import Attack, Ensemble, canonical_name, parse_attack
from nuat.config.serialization import to_dict
from nuat.data import ImageDataset, as_dataset, class_balanced
from nuat.data.classes import match_classes
from nuat.data.validation import check_images
from nuat.errors import InputError, check_positive_int, check_seed
from nuat.evaluation.eight_bit import PNG_CHANNELS
from nuat.evaluation.log_entry import FORMAT_VERSION
from nuat.evaluation.per_image import CleanPredictions, Parts
from nuat.evaluation.probe import probe_model
from nuat.evaluation.sanity_checks import check_model
from nuat.evaluation.search_model import (
    Precision,
    SearchModel,
    build_search_model,
    probe_batches,
)
from nuat.models.class_names import class_names
from nuat.nn.fingerprint import fingerprint
from nuat.nn.validation import check_logits, check_network
from nuat.numbers import plain
from nuat.rng import derive_seed
from nuat.runtime.cuda_graphs import use_cuda_graphs
from nuat.runtime.device import device_of
from nuat.runtime.ranks import world_size
from nuat.runtime.versions import versions
from nuat.threat_models import Ball

Attacks = str | Sequence[str] | Mapping[str, Attack | Ensemble]

DEFAULT_ATTACKS = ("pgd-20", "pgd-100(restarts=5)", "gama-100")

NUM_PROBES = 32
"""Number of images on which the model is checked before it is attacked."""

SMALLEST_CHANGE = 2**-24
"""Half of the distance of the float32 numbers just below 1."""

DEFAULT_BATCH_SIZES = {"cuda": 1024, "cpu": 128}


@dataclass(frozen=True)
class EvaluationRequest:
    """The checked arguments of `evaluate`, and what follows from them.

    Attributes:
        model: the model whose predictions decide the verdicts.
        search_model: a faster copy of the model, which attacks run on.
        images: the data set.
        indices: the images to attack, in the order requested.
        ball: the threat model.
        attacks: the attacks, by name.
        parts: for each attack, the parts that are defined for K classes.
        classes: K.
        batch_size: images attacked at once.
        seed: seed of the attacks' noise.
        out: the folder for the log and the results, or None.
        metadata: stored with the results.
        save_adversarial: whether adversarial images are stored.
        cuda_graphs: whether to capture the iterates of attacks as CUDA graphs.
        max_time: the seconds after which no further batch is attacked; None for no limit.
        started: when the evaluation began, by `time.monotonic`.
        notes: warnings about the model and the attacks.
        model_probe: see `nuat.evaluation.probe.probe_model`.
    """

    model: nn.Module
    search_model: SearchModel
    images: ImageDataset
    indices: list[int]
    ball: Ball
    attacks: Mapping[str, Attack | Ensemble]
    parts: Mapping[str, Parts]
    classes: int
    batch_size: int
    seed: int
    out: Path | None
    metadata: dict[str, Any]
    save_adversarial: bool
    cuda_graphs: bool
    max_time: float | None
    started: float
    notes: list[str]
    model_probe: list[float | None]

    def is_over(self) -> bool:
        """Return whether `max_time` is over."""
        return self.max_time is not None and time.monotonic() - self.started > self.max_time

    def config(self, clean: CleanPredictions | None = None) -> dict[str, Any]:
        """Return the content of config.json, which identifies the evaluation.

        `content_hash` is None as long as the images have not been read for the clean predictions.
        """
        return {
            "format_version": FORMAT_VERSION,
            "model_fingerprint": fingerprint(self.model),
            "model_probe": self.model_probe,
            "ball": repr(self.ball),
            "attacks": {name: to_dict(attack) for name, attack in self.attacks.items()},
            "images": {
                "count": len(self.indices),
                "indices_hash": derive_seed(*sorted(self.indices)),
                "content_hash": clean.content_hash() if clean else None,
            },
            "seed": self.seed,
            "search_precision": self.search_model.precision,
            "batchnorm_folded": self.search_model.batchnorm_folded,
            "save_adversarial": self.save_adversarial,
            "metadata": self.metadata,
            "versions": versions(),
        }


def resolve_request(
    model: nn.Module,
    images: Any,
    ball: Ball,
    attacks: Attacks,
    *,
    classes: int | None,
    samples: int | None,
    indices: Sequence[int] | None,
    batch_size: int | None,
    seed: int,
    out: Path | str | None,
    metadata: Mapping[str, Any] | None,
    save_adversarial: bool,
    search_precision: Precision,
    cuda_graphs: bool | None,
    max_time: float | None,
) -> EvaluationRequest:
    """Check the arguments of `evaluate`. Raises InputError for an invalid one."""
    started = time.monotonic()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model is {model!r}, not a torch.nn.Module; the model of a run or of a weights file "
            "is nuat.load_model(PATH).model"
        )
    check_network(model)
    classes, samples, batch_size, seed = map(plain, (classes, samples, batch_size, seed))
    max_time = plain(max_time)
    images, class_notes = match_classes(as_dataset(images), class_names(model) or ())
    device = device_of(model)
    images = images.to(device)
    images.check()
    attacks = parse_attacks(attacks, ball)
    check_seed(seed)
    chosen = select_indices(images, samples, indices, seed)
    if batch_size is not None:
        check_positive_int("batch_size", batch_size)
    _check_options(search_precision, out, save_adversarial, max_time)
    x, y = images.batch(torch.tensor(sorted(chosen)[:NUM_PROBES]))
    check_images(x)
    # check_model reports a softmax as a note, which is stored with the result; NaN logits are
    # counted over all images, unless there is nothing else
    classes = check_logits(model, x, classes, warn_of_softmax=False, some_finite=True)
    images.check(classes)
    parts, notes = applicable_attacks(attacks, classes)
    x_spread = images.batch(torch.tensor(_spread(sorted(chosen))))[0]
    check_images(x_spread)
    search_model = build_search_model(model, x_spread, search_precision)
    train_mode = any(attack.train_mode for each in parts.values() for attack in each.values())
    if ball.eps < SMALLEST_CHANGE:
        notes.append(f"eps is {ball.eps:g}, so no attack can change an image")
    if save_adversarial and x.shape[1] not in PNG_CHANNELS:
        notes.append(
            f"the images have {x.shape[1]} channels, so adversarial images are not saved as PNG "
            "files, which have 1 or 3, but in adversarial.safetensors alone"
        )
    notes += [*class_notes, *check_model(model, x, y), *search_model.notes]
    return EvaluationRequest(
        model=model,
        search_model=search_model,
        images=images,
        indices=chosen,
        ball=ball,
        attacks=attacks,
        parts=parts,
        classes=classes,
        batch_size=batch_size or DEFAULT_BATCH_SIZES.get(x.device.type, 128),
        seed=seed,
        out=None if out is None else Path(out),
        metadata=to_dict(metadata or {}),
        save_adversarial=save_adversarial,
        cuda_graphs=use_cuda_graphs(cuda_graphs, device),
        max_time=max_time,
        started=started,
        notes=notes,
        model_probe=probe_model(model, probe_batches(x_spread), train_mode),
    )


def parse_attacks(attacks: Attacks, ball: Ball) -> dict[str, Attack | Ensemble]:
    """Return the attacks by name.

    Raises:
        InputError: there are no attacks, or one of them has another threat model than `ball`.
    """
    if isinstance(attacks, str):
        attacks = [attacks]
    if not isinstance(attacks, Mapping):
        attacks = {canonical_name(name): parse_attack(name, ball) for name in attacks}
    if not attacks:
        raise InputError("attacks is empty; name at least one, such as 'pgd-20'")
    for name, attack in attacks.items():
        if attack.ball != ball:
            raise InputError(
                f"the attack {name} has the threat model {attack.ball}, but the evaluation {ball}"
            )
    return dict(attacks)


def select_indices(
    images: ImageDataset, samples: int | None, indices: Sequence[int] | None, seed: int
) -> list[int]:
    """Return the indices of the images to attack: all, class-balanced samples, or `indices`.

    Raises:
        InputError: both `samples` and `indices` are given, or `indices` is empty, has duplicates,
            or exceeds the data set.
    """
    if indices is None:
        if samples is None:
            return list(range(len(images)))
        check_positive_int("samples", samples)
        return class_balanced(images.y, samples, derive_seed(seed, "samples")).tolist()
    if samples is not None:
        raise InputError("samples and indices are both given; give only one of them")
    chosen = [plain(index) for index in indices]
    for index in chosen:
        if not isinstance(index, int) or isinstance(index, bool):
            raise InputError(f"the index {index!r} of an image is not a whole number")
    outside = [index for index in chosen if not 0 <= index < len(images)]
    problem = (
        "there are none" if not chosen
        else f"{outside[0]} is outside" if outside
        else "there is a duplicate" if len(set(chosen)) != len(chosen)
        else ""
    )  # fmt: skip
    if problem:
        raise InputError(f"indices must be distinct, from 0 to {len(images) - 1}, but {problem}")
    return chosen


def applicable_attacks(
    attacks: Mapping[str, Attack | Ensemble], classes: int
) -> tuple[dict[str, Parts], list[str]]:
    """Return for each attack its parts that are defined for K classes, and notes on the others.

    Raises:
        InputError: no part of an attack is defined for so few classes.
    """
    parts: dict[str, Parts] = {}
    notes: list[str] = []
    for name, attack in attacks.items():
        if isinstance(attack, Ensemble):
            parts[name], left_out = attack.applicable(classes)
            notes += left_out
        else:
            attack.check_classes(classes)
            parts[name] = {name: attack}
        notes += [f"{part}: {note}" for part, each in parts[name].items() for note in each.notes()]
    return parts, notes


def count_runs(parts: Mapping[str, Parts], classes: int) -> int:
    """Return the number of runs of all attacks on one image, over all targets and restarts."""
    return sum(attack.num_runs(classes) for each in parts.values() for attack in each.values())


def _check_options(
    search_precision: str, out: Path | str | None, save_adversarial: bool, max_time: float | None
) -> None:
    if search_precision not in ("fp32", "bf16"):
        raise InputError(f"search_precision is {search_precision!r}, but must be 'fp32' or 'bf16'")
    if out is None and (save_adversarial or world_size() > 1):
        raise InputError("save_adversarial and torchrun need a folder for the results: give out")
    if max_time is None:
        return
    is_number = isinstance(max_time, int | float) and not isinstance(max_time, bool)
    if not is_number or not 0 <= max_time < math.inf:
        raise InputError(f"max_time is {max_time!r}, but must be a number of seconds from 0 up")
    if out is None:
        raise InputError("max_time needs a folder to go on from: give out")


def _spread(indices: list[int]) -> list[int]:
    """Return the first NUM_PROBES indices, and as many of the others, evenly spread."""
    first, others = indices[:NUM_PROBES], indices[NUM_PROBES:]
    return first + others[:: max(1, -(-len(others) // NUM_PROBES))]
