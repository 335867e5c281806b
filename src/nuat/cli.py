"""The command line: nuat train | evaluate | reproduce | report | list."""

from __future__ import annotations

import json
import math
import re
import runpy
import sys
import warnings
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from torch import nn

import nuat
from nuat.attacks import attacks
from nuat.data import datasets, load
from nuat.errors import InputError, NonFinite, unknown
from nuat.evaluate import ATTACKS, Scores, evaluate
from nuat.loading import Trained, described, trained
from nuat.models import models
from nuat.network import device_named
from nuat.recipes import Recipe, recipe, recipes
from nuat.report import over_seeds, render, repeated, rows, write_page
from nuat.reproduce import reproduce
from nuat.runs import Run, whole
from nuat.threat import Ball, norms, read_eps
from nuat.train import fit

app = typer.Typer(
    help=(nuat.__doc__ or "").removeprefix("nuat: "),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Use = Annotated[
    list[Path] | None,
    typer.Option("--use", help="A Python file of your own, run first: its register(...) count."),
]
Eps = Annotated[str | None, typer.Option(help="Radius of the threat model: 8/255 or 0.03.")]
Norm = Annotated[str | None, typer.Option(help="linf or l2; by default the recipe's.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu; by default cuda if any.")]
Attacks = Annotated[
    list[str] | None,
    typer.Option("--attack", help="fgsm, pgd-20, gama-100, 'pgd-100(restarts=5)'; repeatable."),
]


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="See: nuat list recipes.")],
    data: Annotated[str, typer.Option(help="See: nuat list data.")] = "digits",
    model: Annotated[str | None, typer.Option(help="See: nuat list models.")] = None,
    eps: Eps = None,
    norm: Norm = None,
    epochs: Annotated[int | None, typer.Option(help="Stretches every schedule to fit.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
    seed: int = 0,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value of the recipe or its method, such as lam.to=4."),
    ] = None,
    on_collapse: Annotated[
        str | None, typer.Option(help="warn, stop or rollback; by default the recipe's.")
    ] = None,
    device: Device = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop with a checkpoint after 90s, 30m or 2h.")
    ] = None,
    use: Use = None,
) -> None:
    """Train a network. The same command goes on where a killed run left off."""
    _load_own(use)
    row = recipe(name, data)
    if eps is not None or norm is not None:
        row = row.against(_ball(row.ball, eps, norm))
    if epochs is not None:
        row = row.lasting(epochs)
    if on_collapse is not None:
        row = replace(row, on_collapse=on_collapse)
    for assignment in set or []:
        row = _set(row, assignment)
    run = fit(row, model, data, out=out, seed=seed, device=device, max_time=_seconds(max_time))
    if run.finished:
        _print(f"{run.path}/model.safetensors holds the weights; now: nuat evaluate {run.path}")


@app.command("evaluate")
def evaluate_command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    attack: Attacks = None,
    model: Annotated[str | None, typer.Option(help="For weights that do not say.")] = None,
    data: Annotated[str | None, typer.Option(help="By default what it was trained on.")] = None,
    split: str = "test",
    samples: Annotated[
        int | None, typer.Option(help="Only so many images, balanced over the classes.")
    ] = None,
    eps: Eps = None,
    norm: Norm = None,
    batch_size: int = 256,
    seed: int = 0,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Scores file; by default scores/SPLIT.json of the run.")
    ] = None,
    use: Use = None,
) -> None:
    """Attack a trained network and say how many images stand."""
    _load_own(use)
    data = data or described(source).get("data")
    if data is None:
        raise InputError(f"{source} does not say what it was trained on: name it with --data")
    splits = load(data)
    network = trained(
        source,
        model,
        classes=len(splits.classes),
        channels=splits.train.channels,
        device=device_named(device),
    )
    if out is not None and not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if network.ball is None and eps is None:
        raise InputError(f"{source} does not say its threat model: give --eps, such as --eps 8/255")
    ball = _ball(network.ball, eps, norm)
    scores = evaluate(
        network.f,
        splits[split],
        ball,
        attack or ATTACKS,
        classes=len(splits.classes),
        samples=samples,
        batch_size=batch_size,
        seed=seed,
        quiet=False,
    )
    shown = Table(
        "", "images that stand", title=f"{source}: {split}, {len(scores.ids)} images, {ball}"
    )
    shown.add_row("clean", f"{scores.clean:.1%}")
    for name in scores.standing:
        shown.add_row(name, f"{scores.robust(name):.1%}")
    shown.add_row("worst of them", f"{scores.worst:.1%}")
    console.print(shown)
    told = {"eps": eps, "norm": norm, "seed": seed or None}
    parts = [split, *([str(samples)] if samples else []), *(attack or [])]
    parts += [f"{name}-{value}" for name, value in told.items() if value is not None]
    _save(scores, network, "-".join(parts), out)


@app.command("reproduce")
def reproduce_command(
    data: Annotated[str, typer.Argument(help="The data set whose rows to run.")],
    only: Annotated[
        str | None, typer.Option("--rows", help="Such as normal,pgd-at,nuat-wa; by default all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/DATA.")] = None,
    seeds: int = 1,
    attack: Attacks = None,
    epochs: Annotated[int | None, typer.Option(help="Stretches every schedule to fit.")] = None,
    device: Device = None,
    use: Use = None,
) -> None:
    """Train and attack the rows of a table; show them side by side. Goes on where it was."""
    _load_own(use)
    every = [row.name for row in recipes() if row.data == data]
    if not every:
        raise unknown("data set with recipes", data, {row.data for row in recipes()})
    names = [name.strip() for name in only.split(",")] if only else every
    target = out or Path("runs") / data
    runs = reproduce(
        data, names, target, seeds=seeds, attacks=attack or ATTACKS, epochs=epochs, device=device
    )
    _show(runs)
    _print(f"the page: {target / 'report.html'}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default report.html in the first run.")
    ] = None,
    use: Use = None,
) -> None:
    """Show runs side by side, as a table and as one self-contained page."""
    _load_own(use)
    runs = [Run.open(folder) for folder in folders]
    networks = _networks(runs)
    _show(runs)
    target = out or runs[0].path / "report.html"
    _print(f"the page: {write_page(runs, target, networks=networks)}")


class Kind(StrEnum):
    """What can be listed."""

    recipes = "recipes"
    attacks = "attacks"
    models = "models"
    data = "data"


@app.command("list")
def list_command(
    kind: Kind,
    data: Annotated[str | None, typer.Option(help="Only recipes for this data set.")] = None,
    use: Use = None,
) -> None:
    """What there is to name: recipes, attacks, models, data."""
    _load_own(use)
    shown = Table(box=None, pad_edge=False)
    if kind is Kind.recipes:
        for heading in ("recipe", "data", "model", "epochs", "source"):
            shown.add_column(heading, no_wrap=True)
        shown.add_column("note", overflow="fold", ratio=1)
        if data is not None and data not in {row.data for row in recipes()}:
            raise unknown("data set", data, {row.data for row in recipes()})
        for row in recipes():
            if data in (None, row.data):
                cells = (row.name, row.data, row.model, str(row.epochs), row.source)
                shown.add_row(*cells, row.note)
    else:
        shown.add_column(kind.value, no_wrap=True)
        shown.add_column("")
        for name, entry in {"attacks": attacks, "models": models, "data": datasets}[kind].items():
            shown.add_row(name, (entry.__doc__ or "").strip().split("\n")[0])
    console.print(shown)


def _show(runs: list[Run]) -> None:
    """The table of the runs; where they are repeated over seeds, also the one over seeds."""
    shown = rows(runs)
    console.print(render(shown))
    if repeated(shown):
        console.print(render(shown, over_seeds(shown)))


def _networks(runs: list[Run]) -> dict[Path, nn.Module]:
    """The networks of the runs, but for those that cannot be built here, which is said."""
    networks = {}
    for run in runs:
        try:
            networks[run.path] = trained(run.path).f
        except InputError as error:
            _warn(f"{run.path} is shown without images: {error}")
    return networks


def _load_own(files: list[Path] | None) -> None:
    for file in files or []:
        if not file.is_file():
            raise InputError(f"--use {file}: there is no such file")
        runpy.run_path(str(file))


def _ball(known: Ball | None, eps: str | None, norm: str | None) -> Ball:
    kind = norms[norm] if norm is not None else type(known) if known else norms["linf"]
    if eps is None:
        if known is None or type(known) is not kind:
            raise InputError(f"--norm {norm} needs an --eps of its own, such as --eps 0.5")
        return known
    return kind(read_eps(eps))


def _set(row: Recipe, assignment: str) -> Recipe:
    field, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"--set takes field=value, such as lam.to=4, not {assignment!r}")
    return row.setting(field.strip(), text.strip())


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


def _save(scores: Scores, network: Trained, name: str, out: Path | None) -> None:
    if out is None and network.run is None:
        return
    name = re.sub(r"[^\w.]+", "-", name).strip("-")
    if out is not None:
        whole(out, lambda file: file.write_text(json.dumps(scores.as_dict()) + "\n"))
    elif network.run is not None:
        out = network.run.save_scores(name, scores.as_dict())
    _print(f"verdicts, image by image: {out}")


def _print(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _warn(message: Warning | str, *_: Any) -> None:
    Console(stderr=True).print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)


UsageError = typer.BadParameter.__mro__[1]
"""What the parser raises for a command line it cannot read."""


def main() -> None:
    """Run the command line; what a user got wrong is one line and exit status 2."""
    warnings.showwarning = _warn
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (InputError, NonFinite, OSError) as error:
        _error(str(error))
        sys.exit(1 if isinstance(error, NonFinite) else 2)
    except UsageError as error:
        _error(error.format_message())  # type: ignore[attr-defined]
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _error("stopped; the same command goes on from the last checkpoint")
        sys.exit(130)


def _error(text: str) -> None:
    Console(stderr=True).print(f"error: {text}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
