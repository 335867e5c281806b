"""`fit`: train a model according to a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nuat.checkpoints.run import Run
from nuat.models.class_names import record_class_names
from nuat.nn.precision import set_memory_format
from nuat.recipes import Recipe
from nuat.runtime.device import fastest_convolutions, get_device
from nuat.runtime.grad_mode import gradients_enabled
from nuat.runtime.precision import convolution_precision
from nuat.runtime.ranks import connected_ranks
from nuat.runtime.threads import configure_threads
from nuat.training.plan import Plan, resolve
from nuat.training.trainer import Trainer


@gradients_enabled()
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
    cuda_graphs: bool | None = None,
    compile: bool = False,
) -> Run:
    """Train a model according to a recipe and write the results to the run folder `out`.

    The same call resumes a run that was killed or stopped; on a CPU the weights are then bitwise
    identical to those of an uninterrupted run. When training has finished, `model`, if it is a
    network, holds the weights of the best epoch. It ends in eval mode, on `device`.

    Under torchrun all processes train one model together (see docs/many_devices.md).

    Args:
        recipe: a Recipe, or the name of one for this data set.
        model: a network that maps images in [0, 1], [B, C, H, W], to logits [B, K], or the name of
            one; by default the recipe's.
        data: the name of a data set (by default the recipe's, or digits), or Splits, or tensors, a
            torch Dataset or DataLoader, any iterable of (x, y) with x in [0, 1], or a mapping from
            split names to these (see `nuat.data.as_splits`).
        out: the run folder; by default runs/RECIPE-DATA-SEED.
        init: the initial weights: a run folder, a weights file, or "pretrained" for those of timm
            (see `nuat.checkpoints.load_initial_weights`). A classification head for another number
            of classes is initialized at random.
        seed: determines the initial weights, the order of the batches, augmentation and noise.
        device: by default cuda if it is available, else cpu.
        max_time: stop after this many seconds with a checkpoint, from which the same call resumes.
        threads: the number of CPU threads of torch; by default torch's own choice.
        cuda_graphs: record the training steps as CUDA graphs, as is the default on a GPU. A method
            that does not support them prints a message and trains without.
        compile: compile the model by torch.compile for the training steps: layers are fused into
            fewer kernels. Every start compiles, for about half a minute on a GPU.

    Returns:
        The run. `run.finished` is true once all epochs are done.

    Raises:
        InputError: an input cannot be used; no training has started.
        NonFiniteError: a loss is NaN or infinite; the last checkpoint is kept.
        ConnectionError: another rank has died; the same call resumes.

    >>> x, y = torch.rand(32, 1, 8, 8), torch.arange(32) % 4
    >>> recipe = nuat.get_recipe("nuat", "digits").with_epochs(1)
    >>> model = nuat.build_model("small-cnn(width=4)", classes=4, channels=1)
    >>> run = nuat.fit(recipe, model=model, data=(x, y), out="runs/example")
    the test split is held out of train: 8 of 32 images...
    >>> run.finished
    True
    """
    device = get_device(device)
    with connected_ranks(device):
        plan = resolve(
            recipe,
            model,
            data,
            out=out,
            init=init,
            seed=seed,
            device=device,
            max_time=max_time,
            threads=threads,
            cuda_graphs=cuda_graphs,
            compile=compile,
        )
        with torch_settings(plan):
            run = Trainer(plan).run()
    record_class_names(plan.model, plan.splits.classes)
    return run


@contextmanager
def torch_settings(plan: Plan) -> Iterator[None]:
    """Apply the plan's settings to torch and to the model, and undo them on exit.

    On exit, also after an exception, torch has its former random state and number of threads, and
    the model is in eval mode and in the default memory format.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        try:
            configure_threads(plan.threads)
            set_memory_format(plan.model, plan.memory_format)
            with convolution_precision(plan.recipe.tf32), fastest_convolutions():
                yield
        finally:
            set_memory_format(plan.model, torch.contiguous_format)
            plan.model.eval()
            torch.set_num_threads(threads)


__all__ = ["torch_settings", "fit"]
