"""The plan of a training run: all inputs of `fit`, checked before training starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nuat.attacks import FGSM
from nuat.checkpoints import InitialWeights, check_weights, resolve_init
from nuat.config.serialization import to_dict
from nuat.data import Splits, as_splits, dataset_slug, load_dataset
from nuat.data.splits import SPLIT_NAMES
from nuat.errors import InputError, check_positive_int, check_seed
from nuat.methods import StepContext
from nuat.models import build_model, model_name, startup_notes
from nuat.nn.ema import EMAs, check_copy
from nuat.nn.precision import select_memory_format
from nuat.nn.validation import (
    check_last_batch,
    check_logits,
    check_loss,
    check_network,
    check_trainable,
)
from nuat.numbers import plain
from nuat.recipes import Recipe, get_recipe
from nuat.rng import derive_seed
from nuat.runtime.cuda_graphs import use_cuda_graphs
from nuat.runtime.device import get_device
from nuat.runtime.precision import has_tf32
from nuat.runtime.ranks import world_size
from nuat.runtime.versions import versions
from nuat.training.distributed import check_gradients, check_ranks, norm_batch_size


@dataclass(frozen=True)
class Plan:
    """A training run whose inputs have been checked.

    Attributes:
        recipe: the recipe.
        model: the network, on `device`, with the weights it was built with.
        splits: the data, on `device` if they fit in memory.
        folder: the run folder.
        config: the contents of config.json.
        initial_weights: the weights to start from; None for those of `model`.
        seed: the seed of the run.
        device: the device to train on.
        threads: the number of CPU threads of torch; None keeps torch's own choice.
        memory_format: the memory format of weights and activations during training.
        max_time: the seconds after which training stops with a checkpoint; None for no limit.
        cuda_graphs: whether to record the training steps as CUDA graphs.
        compile: whether to compile the model for the training steps.
        startup_notes: messages to print when the run starts for the first time.
        runtime_notes: messages to print at every start.
    """

    recipe: Recipe
    model: nn.Module
    splits: Splits
    folder: Path
    config: dict[str, Any]
    initial_weights: InitialWeights | None
    seed: int
    device: torch.device
    threads: int | None
    memory_format: torch.memory_format
    max_time: float | None
    cuda_graphs: bool
    compile: bool
    startup_notes: tuple[str, ...]
    runtime_notes: tuple[str, ...]


def resolve(
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
) -> Plan:
    """Resolve the inputs of `fit` (see there) and check them.

    The model is moved to the device, where the checks run it. Nothing else changes: no file is
    written, and torch's random state and settings stay as they are.

    Raises:
        InputError: an input cannot be used.
        NonFiniteError: the model returns logits that are NaN or infinite.
    """
    recipe, splits = _resolve_recipe_and_data(recipe, data)
    if isinstance(model, str):
        recipe = replace(recipe, model=model)
    seed, threads, max_time = map(plain, (seed, threads, max_time))
    device = get_device(device)
    cuda_graphs = use_cuda_graphs(cuda_graphs, device)
    if compile and world_size() > 1:
        raise InputError("a compiled model trains on one process only: leave compile out")
    if threads is not None:
        check_positive_int("threads", threads)
    check_seed(seed)
    splits.train.check_augment(recipe.augment)
    content = {name: splits[name].content_hash() for name in SPLIT_NAMES}
    splits = splits.to(device)
    folder = Path(out or Path("runs") / f"{recipe.name}-{dataset_slug(splits.name)}-{seed}")
    classes, channels = len(splits.classes), splits.train.channels
    # checks may draw random numbers too, such as those of a dropout layer
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        if not isinstance(model, nn.Module):
            model = build_model(recipe.model, classes, channels)
        check_network(model)
        check_trainable(model)
        model = model.to(device)
        x, y = splits.train.batch(torch.arange(min(2, len(splits.train))))
        check_logits(model, x, classes)
        initial_weights, init_config = resolve_init(init, model, classes, channels, folder)
        check_ranks(len(splits.train), recipe.batch_size, device, recipe.batchnorm)
        check_last_batch(model, x, len(splits.train), recipe.batch_size, world_size())
        check_weights(model)
        uses_ema = _check_method(recipe, model, x, y, classes)
        if uses_ema or recipe.ema_decay is not None:
            check_copy(model, x)
        memory_format, format_note = select_memory_format(model, x, recipe.channels_last)
    init_notes = [] if initial_weights is None else initial_weights.notes(splits.classes)
    tf32_note = (
        "convolutions compute in TF32 on this GPU, as torch does by default: --set tf32=False for "
        "float32"
        if recipe.tf32 and recipe.precision == "fp32" and has_tf32(device)
        else ""
    )
    ema_note = recipe.ema_note(len(splits.train))
    method_notes = recipe.method.startup_notes(norm_batch_size(recipe), classes)
    return Plan(
        recipe=recipe,
        model=model,
        splits=splits,
        folder=folder,
        config=_config(recipe, model, splits, content, seed, threads) | init_config,
        initial_weights=initial_weights,
        seed=seed,
        device=device,
        threads=threads,
        memory_format=memory_format,
        max_time=max_time,
        cuda_graphs=cuda_graphs,
        compile=compile,
        startup_notes=(*splits.notes, *startup_notes(model), *init_notes),
        runtime_notes=tuple(filter(None, (format_note, tf32_note, ema_note, *method_notes))),
    )


def _resolve_recipe_and_data(recipe: Recipe | str, data: Any) -> tuple[Recipe, Splits]:
    """Return recipe and data; by default each is found by the name of the other."""
    splits = None if data is None or isinstance(data, str) else as_splits(data)
    if isinstance(recipe, str):
        data_name = splits.name if splits else data or "digits"
        recipe = get_recipe(recipe, data_name, in_memory=splits is not None)
    return recipe, splits or load_dataset(data or recipe.data)


def _check_method(recipe: Recipe, model: nn.Module, x: Tensor, y: Tensor, classes: int) -> bool:
    """Raise InputError unless the recipe can take a step on two images; restore the model.

    Returns:
        Whether the method uses an EMA.
    """
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    emas = EMAs(model)
    ctx = StepContext(recipe.epochs - 1, batches=1, batch_size=len(x), emas=emas)
    try:
        check_logits(model, x, classes, warn_of_softmax=False, training=True)
        if recipe.ema_decay is not None:
            emas(recipe.ema_decay)
        loss = next(recipe.method.step(model.train(), x, y, ctx))
        check_loss(loss)
        loss.backward()
        check_gradients(model)
        FGSM(recipe.ball)(model, x, y)  # as validation after the first epoch will do
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        name, reason = type(recipe.method).__name__, str(error).strip().splitlines()[0]
        raise InputError(f"{name} cannot train this network: {reason}") from error
    finally:
        model.zero_grad()
        model.load_state_dict(state)
        for module, was_training in modes:
            module.training = was_training
    return len(emas) > 0


def _config(
    recipe: Recipe,
    model: nn.Module,
    splits: Splits,
    content: dict[str, str],
    seed: int,
    threads: int | None,
) -> dict[str, Any]:
    sizes = {name: len(splits[name]) for name in SPLIT_NAMES}
    classes = list(splits.classes)
    return {
        "recipe": to_dict(recipe),
        "model": model_name(model),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "data": {"name": splits.name, "classes": classes, **sizes, "content_hash": content},
        "channels": splits.train.channels,
        "seed": seed,
        "threads": threads or torch.get_num_threads(),
        "versions": versions(),
    }
