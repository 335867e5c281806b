"""The command `nuat train`."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nuat.cli.options import (
    BadImages,
    Compile,
    DataDir,
    Device,
    Epochs,
    Eps,
    Imports,
    MaxTime,
    NoCudaGraphs,
    Norm,
    Overrides,
    Threads,
    apply_common_options,
    parse_override,
    parse_seconds,
    resolve_ball,
)
from nuat.cli.terminal import print_line
from nuat.config.imports import is_import_path
from nuat.runtime.signals import out_of_time

Data = Annotated[str, typer.Option(help="Such as cifar10 or folder:PATH; see: nuat list data.")]
Model = Annotated[
    str | None, typer.Option(help="A name (see: nuat list models), timm:NAME or module:factory.")
]
Init = Annotated[
    str | None, typer.Option(help="Initial weights: a file, a run folder, or 'pretrained' (timm).")
]
Out = Annotated[Path | None, typer.Option(help="The run folder; default: runs/RECIPE-DATA-SEED.")]
OnOverfitting = Annotated[
    str | None,
    typer.Option(
        help="After catastrophic overfitting: warn, stop or rollback; default: the recipe's."
    ),
]
OnNonfinite = Annotated[
    str | None,
    typer.Option(help="After a NaN or infinite loss: stop, skip or rollback; default: stop."),
]


def train_command(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="See: nuat list recipes.")],
    data: Data = "digits",
    model: Model = None,
    init: Init = None,
    eps: Eps = None,
    norm: Norm = None,
    epochs: Epochs = None,
    out: Out = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights, batches and attacks.")] = 0,
    overrides: Overrides = None,
    on_overfitting: OnOverfitting = None,
    on_nonfinite: OnNonfinite = None,
    device: Device = None,
    max_time: MaxTime = None,
    threads: Threads = None,
    no_cuda_graphs: NoCudaGraphs = False,
    compile: Compile = False,
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    imports: Imports = None,
) -> None:
    """Train a model. Run the same command again to resume an interrupted run."""
    apply_common_options(imports, data_dir)
    from nuat.data import load_dataset, with_bad_images
    from nuat.recipes import get_recipe
    from nuat.runtime.ranks import rank, world_size
    from nuat.training import fit

    data = with_bad_images(data, bad_images)
    with warnings.catch_warnings(record=True) as recipe_warnings:
        warnings.simplefilter("always")
        recipe = get_recipe(name, data)
    if eps is not None or norm is not None:
        recipe = recipe.with_threat_model(resolve_ball(recipe.ball, eps, norm))
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    if on_overfitting is not None:
        recipe = replace(recipe, on_overfitting=on_overfitting)
    if on_nonfinite is not None:
        recipe = replace(recipe, on_nonfinite=on_nonfinite)
    for assignment in overrides or []:
        recipe = recipe.with_override(*parse_override(assignment))
    splits = load_dataset(data)
    # only now: data that cannot be read are one error, without a warning about their recipe
    for warning in recipe_warnings:
        warnings.warn(warning.message, stacklevel=2)
    seconds = parse_seconds(max_time)
    run = fit(
        recipe,
        model,
        splits,
        out=out,
        init=init,
        seed=seed,
        device=device,
        max_time=seconds,
        threads=threads,
        cuda_graphs=False if no_cuda_graphs else None,
        compile=compile,
    )
    finished = rank() > 0 or run.finished
    # under torchrun this exit status would restart the ranks
    if seconds is not None and not finished and world_size() == 1:
        raise out_of_time(seconds)
    if rank() == 0 and finished:
        print_line(f"The weights are in {run.path}/model.safetensors. To attack them:")
        print_line(_evaluate_command(run.path, model or recipe.model, data, imports or []))


def _evaluate_command(run: Path, model: str, data: str, imports: list[Path]) -> str:
    """The `nuat evaluate` command for a run.

    Code and paths that only its files name are not opened, so they are named again.
    """
    from nuat.data import is_path_or_function
    from nuat.models.timm_nets import PREFIX

    name = model.partition("(")[0]
    is_users = is_import_path(name) and not name.startswith(PREFIX)
    options = ["--model", model] if is_users else []
    if is_path_or_function(data):
        options += ["--data", data]
    for file in imports:
        options += ["--import", str(file)]
    return shlex.join(["nuat", "evaluate", str(run), *options])
