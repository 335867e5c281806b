"""nuat train."""

from __future__ import annotations

import math
import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nuat.cli.options import (
    BadImages,
    DataDir,
    Device,
    Eps,
    Norm,
    Threads,
    Use,
    ball_of,
    load_own,
)
from nuat.cli.terminal import say
from nuat.config.imports import is_import_path
from nuat.data import load_dataset, set_data_dir, with_bad_images
from nuat.errors import InputError
from nuat.models.timm_nets import PREFIX
from nuat.recipes import Recipe, get_recipe
from nuat.training import fit


def train(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="See: nuat list recipes.")],
    data: Annotated[
        str, typer.Option(help="Such as cifar10, folder:PATH; see: nuat list data.")
    ] = "digits",
    model: Annotated[
        str | None,
        typer.Option(help="See: nuat list models; or timm:NAME, or module:factory of your own."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights to start from: a file, a run, or pretrained (timm's)."),
    ] = None,
    eps: Eps = None,
    norm: Norm = None,
    epochs: Annotated[int | None, typer.Option(help="Stretches every schedule to fit.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
    seed: int = 0,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value of the recipe or its method, such as lam.to=4."),
    ] = None,
    on_overfitting: Annotated[
        str | None, typer.Option(help="warn, stop or rollback; by default the recipe's.")
    ] = None,
    device: Device = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop with a checkpoint after 90s, 30m or 2h.")
    ] = None,
    threads: Threads = None,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Record the steps as CUDA graphs; a GPU only.")
    ] = False,
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    use: Use = None,
) -> None:
    """Train a network. The same command goes on where a killed run left off."""
    load_own(use)
    set_data_dir(data_dir)
    data = with_bad_images(data, bad_images)
    with warnings.catch_warnings(record=True) as lent:
        warnings.simplefilter("always")
        row = get_recipe(name, data)
    if eps is not None or norm is not None:
        row = row.with_threat_model(ball_of(row.ball, eps, norm))
    if epochs is not None:
        row = row.with_epochs(epochs)
    if on_overfitting is not None:
        row = replace(row, on_overfitting=on_overfitting)
    for assignment in set or []:
        row = setting(row, assignment)
    splits = load_dataset(data)
    for warning in lent:
        warnings.warn(warning.message, stacklevel=2)
    run = fit(
        row,
        model,
        splits,
        out=out,
        init=init,
        seed=seed,
        device=device,
        max_time=_seconds(max_time),
        threads=threads,
        graphs=graphs,
    )
    if run.finished:
        then = _opening(run.path, model or row.model, use or [])
        say(f"{run.path}/model.safetensors holds the weights; now: nuat evaluate {then}")


def _opening(run: Path, model: str, use: list[Path]) -> str:
    """What to type after `nuat evaluate`: a run opens by itself unless it needs a user's code."""
    name = model.partition("(")[0]
    own = ["--model", model] if is_import_path(name) and not name.startswith(PREFIX) else []
    return shlex.join([str(run), *own, *(part for file in use for part in ("--use", str(file)))])


def setting(row: Recipe, assignment: str) -> Recipe:
    """The recipe with what a `--set field=value` says."""
    field, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"--set takes field=value, such as lam.to=4, not {assignment!r}")
    return row.with_override(field.strip(), text.strip())


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise InputError(f"--max-time takes seconds, or 90s, 30m, 2h, not {text!r}")
    return seconds
