"""nuat evaluate."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from nuat.cli.options import (
    Attacks,
    BadImages,
    DataDir,
    Device,
    Eps,
    Norm,
    Use,
    ball_of,
    load_own,
)
from nuat.cli.terminal import console, say
from nuat.data import load, look_in, with_bad_images
from nuat.errors import InputError
from nuat.evaluate import ATTACKS, Scores
from nuat.evaluate import evaluate as attacked
from nuat.loading import Trained, described, trained
from nuat.network import device_named
from nuat.runs import whole


def evaluate(
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
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    use: Use = None,
) -> None:
    """Attack a trained network and say how many images stand."""
    load_own(use)
    look_in(data_dir)
    data = data or described(source).get("data")
    if data is None:
        raise InputError(f"{source} does not say what it was trained on: name it with --data")
    splits = load(with_bad_images(data, bad_images))
    for note in splits.notes:
        say(note)
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
    ball = ball_of(network.ball, eps, norm)
    scores = attacked(
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


def _save(scores: Scores, network: Trained, name: str, out: Path | None) -> None:
    if out is None and network.run is None:
        return
    name = re.sub(r"[^\w.]+", "-", name).strip("-")
    if out is not None:
        whole(out, lambda file: file.write_text(json.dumps(scores.as_dict()) + "\n"))
    elif network.run is not None:
        out = network.run.save_scores(name, scores.as_dict())
    say(f"verdicts, image by image: {out}")
