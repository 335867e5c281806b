"""What training writes to its run folder, and reads again: weights and checkpoints."""

from __future__ import annotations

import json
import time
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nuat.checkpoints import check_probe, probe_metadata
from nuat.checkpoints.fields import CHECKPOINT, check_fields, check_metrics, parse_metadata
from nuat.checkpoints.run import identifying_fields
from nuat.config.serialization import diff
from nuat.errors import InputError
from nuat.models import class_name
from nuat.nn.state_dict import plain_state_dict
from nuat.nn.validation import check_logits
from nuat.runtime.ranks import from_first, world_size
from nuat.training.meters import AverageMeter, LossMeter

if TYPE_CHECKING:
    from nuat.training.trainer import Trainer

MAX_SAVE_SHARE = 0.05
"""The share of the time that may go into files; the files of small models are always written."""

CHECKPOINT_SECONDS = 600.0
"""Within an epoch, a checkpoint is written at this interval; after it, see `is_worth_saving`."""


def is_worth_saving(trainer: Trainer) -> bool:
    """Whether saving is quick, or would take no more than 5 % of the time since the last one.

    A large model on a fast device would otherwise wait for its files after every epoch.
    """
    seconds = time.monotonic() - trainer.saved
    return trainer.save_seconds < 0.2 or trainer.save_seconds < MAX_SAVE_SHARE * seconds


def copy_weights(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a copy of the weights of the evaluated model, and their metadata."""
    model = trainer.train_step.eval_model
    metadata = {
        "model": trainer.plan.config["model"],
        "model_class": class_name(model),
        "recipe": trainer.recipe.name,
        "data": trainer.splits.name,
        "classes": json.dumps(trainer.splits.classes),
        "channels": str(trainer.splits.train.channels),
        "ball": repr(trainer.recipe.ball),
        "epoch": str(trainer.epoch),
    }
    metadata |= _probe(trainer, model)
    return {name: w.clone() for name, w in plain_state_dict(model).items()}, metadata


def save_checkpoint(trainer: Trainer) -> None:
    """Write the weights that are due, and everything that `load_checkpoint` needs.

    Raises:
        NonFiniteError: the model returns NaN or infinite logits; nothing is written.
    """
    began = time.monotonic()
    trainer.losses.flush()
    probe = _probe(trainer, trainer.plan.model)
    for name, (weights, metadata) in trainer.unsaved.items():
        from_first(trainer.folder.save_weights, name, weights, metadata)
    trainer.unsaved.clear()
    state = trainer.train_step.state_dict() | {
        "config": trainer.config,
        "metrics": trainer.metrics,
        "ranks": world_size(),
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "finished": trainer.finished,
        "best": list(trainer.best),
        "seconds": trainer.timer.seconds,
        "losses": [trainer.losses.total, trainer.losses.count],
        "logs": trainer.logs.state_dict(),
        "skipped": trainer.skipped,
        "lr_factor": trainer.train_step.lr_factor,
        "probe": probe,
    }
    from_first(trainer.folder.save_checkpoint, state)
    trainer.saved = time.monotonic()
    trainer.save_seconds = trainer.saved - began


def _probe(trainer: Trainer, model: nn.Module) -> dict[str, str]:
    """Return the logits of a fixed image as metadata. Raises NonFiniteError if they are not."""
    image = trainer.splits.train.batch(torch.arange(1))[0]
    check_logits(model, image, warn_of_softmax=False)
    return probe_metadata(model, image)


def load_checkpoint(trainer: Trainer) -> None:
    """Restore the run from its checkpoint, if it has one, and metrics.jsonl with it.

    Raises:
        InputError: the checkpoint is damaged, or is not one of this run.
    """
    state = from_first(trainer.folder.load_checkpoint, trainer.load_device)
    source = f"the checkpoint in {trainer.folder.path}"
    if state is not None:
        check_fields(state, CHECKPOINT, source)
        for line in state["metrics"]:
            check_metrics(line, source)
        own, other = identifying_fields(trainer.config), identifying_fields(state["config"])
        if differences := diff(own, other):
            raise InputError(
                f"{source} is of another run; it differs in {'; '.join(differences)}. Delete it"
            )
    trainer.unsaved.clear()
    trainer.metrics = state["metrics"] if state else []
    from_first(trainer.folder.restore_metrics, trainer.metrics)
    if state is None:
        return
    try:
        trainer.train_step.load_state_dict(state)
    except Exception as error:  # torch raises errors of any kind for state that does not fit
        reason = " ".join(f"{type(error).__name__}: {error}"[:300].split())
        raise InputError(f"{source} does not fit this run: {reason}") from error
    probe = parse_metadata(state["probe"], source)
    check_probe(trainer.plan.model, probe, source, trainer.plan.config["model"])
    trainer.epoch, trainer.batch = state["epoch"], state["batch"]
    trainer.finished = state["finished"]
    trainer.best, trainer.ranks_before = tuple(state["best"]), state["ranks"]
    trainer.skipped, trainer.train_step.lr_factor = state["skipped"], state["lr_factor"]
    trainer.timer.elapsed = state["seconds"]
    trainer.losses, trainer.logs = LossMeter(*state["losses"]), AverageMeter(**state["logs"])
    if not trainer.best or trainer.finished:
        return
    if problem := from_first(_damage_of_weights, trainer):
        trainer.best = ()
        warnings.warn(f"{problem}; the best of the epochs from now on is kept", stacklevel=2)


def _damage_of_weights(trainer: Trainer) -> str:
    """Return why the weights of the best epoch so far cannot be read, or ""."""
    try:
        trainer.folder.weights()
    except InputError as error:
        return str(error)
    return ""
