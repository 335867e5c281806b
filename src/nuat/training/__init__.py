"""Train a network by a recipe: what is given is settled and checked, then the loop runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nuat.checkpoints import resolve_init
from nuat.checkpoints.run import Run
from nuat.config.serialization import to_dict
from nuat.data import Splits, as_splits, dataset_slug, load_dataset
from nuat.errors import InputError
from nuat.methods.cost import forward_equivalents
from nuat.models import build_model, model_name, startup_notes
from nuat.nn.precision import set_memory_format, to_contiguous
from nuat.nn.validation import check_last_batch, check_logits
from nuat.recipes import Recipe
from nuat.recipes import get_recipe as named_recipe
from nuat.rng import derive_seed
from nuat.runtime.device import get_device
from nuat.runtime.threads import configure_threads
from nuat.runtime.versions import versions
from nuat.training.trainer import Trainer


def fit(
    recipe: Recipe | str,
    model: nn.Module | str | None = None,
    data: Any = None,
    *,
    out: Path | str | None = None,
    init: Path | str | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    max_time: float | None = None,
    threads: int | None = None,
    graphs: bool = False,
) -> Run:
    """Train a network by a recipe; the run folder `out` holds what came of it.

    The same call goes on where a killed or stopped one left off, to bit-equal weights on a CPU. At
    the end `model`, if it is a network, holds the weights that were kept and is in eval mode.

    Args:
        recipe: a Recipe, or the name of one for this data set.
        model: a network (images in [0, 1], [B, C, H, W], to logits [B, K]), or the name of one; by
            default the recipe's.
        data: the name of a data set, by default the recipe's, or digits; or Splits; or tensors, a
            torch Dataset or DataLoader, any iterable of (x, y) in [0, 1], or a mapping of such
            (see `nuat.data.as_splits`).
        out: the run folder; by default runs/NAME-DATA-SEED.
        init: weights to start from (see `nuat.checkpoints.load_initial_weights`): a run folder, a weights file,
            or "pretrained" for those that timm has; a head for other classes is drawn anew.
        seed: of weights, order, crops and noise.
        device: by default cuda if there is one, or else cpu.
        max_time: stop with a checkpoint after so many seconds; the same call goes on.
        threads: on a CPU, how many; None: as torch has it.
        graphs: record the steps as CUDA graphs, and say so if the method does not allow it.

    Returns:
        The run. `run.finished` tells whether all epochs were done.

    Raises:
        InputError: something given cannot be used; nothing was changed.
        NonFiniteError: a loss is NaN or infinite; the last good checkpoint stays.
    """
    recipe, splits = _settled(recipe, data)
    if isinstance(model, str):
        recipe = replace(recipe, model=model)
    device = get_device(device)
    if graphs and device.type != "cuda":
        raise InputError(f"CUDA graphs need a cuda device, but this is {device}")
    splits.train.check_augment(recipe.augment)
    folder = Path(out or Path("runs") / f"{recipe.name}-{dataset_slug(splits.name)}-{seed}")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        shape = len(splits.classes), splits.train.channels
        f = model if isinstance(model, nn.Module) else build_model(recipe.model, *shape)
        f, splits = f.to(device), splits.to(device)
        two = _first(splits, 2)
        check_logits(f, two, shape[0])
        start, origin = resolve_init(init, f, *shape, folder)
        check_last_batch(f, two, len(splits.train), recipe.batch_size)
        once = [*splits.notes, *startup_notes(f)]
        try:
            configure_threads(threads)
            engine = [set_memory_format(f, two, recipe.channels_last)]
            run = Run.start(folder, _config(recipe, f, splits, seed) | origin)
            if start is not None:
                start.apply(f)
                once.append(str(start))
            Trainer(recipe, f, splits, run, seed, device, max_time, once, engine, graphs).go()
            f.eval()
        finally:
            to_contiguous(f)
    return run


def _settled(recipe: Recipe | str, data: Any) -> tuple[Recipe, Splits]:
    """The recipe and the data that are meant, each of which may name the other."""
    given = None if data is None or isinstance(data, str) else as_splits(data)
    if isinstance(recipe, str):
        name = given.name if given else data or "digits"
        recipe = named_recipe(recipe, name, in_memory=given is not None)
    return recipe, given or load_dataset(data or recipe.data)


def _first(data: Splits, count: int) -> Tensor:
    """The first training images, at most so many."""
    return data.train.batch(torch.arange(min(count, len(data.train))))[0]


def _config(recipe: Recipe, f: nn.Module, data: Splits, seed: int) -> dict[str, Any]:
    sizes = {split: len(data[split]) for split in ("train", "val", "test")}
    return {
        "recipe": to_dict(recipe),
        "model": model_name(f),
        "parameters": sum(weight.numel() for weight in f.parameters()),
        "data": {"name": data.name, "classes": list(data.classes), **sizes},
        "channels": data.train.channels,
        "forward_equivalents": forward_equivalents(
            recipe.method, f, *data.train.batch(torch.arange(2)), epoch=recipe.epochs - 1
        ),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


__all__ = ["fit"]
