"""Options that several commands share, and how they are read."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated

import typer

from nuat.errors import InputError
from nuat.threat_models import Ball, norms, parse_eps

Use = Annotated[
    list[Path] | None,
    typer.Option("--use", help="A Python file of your own, run first: its register(...) count."),
]
Eps = Annotated[str | None, typer.Option(help="Radius of the threat model: 8/255 or 0.03.")]
Norm = Annotated[str | None, typer.Option(help="linf or l2; by default the recipe's.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu; by default cuda if any.")]
DataDir = Annotated[
    Path | None, typer.Option(help="The folder that holds the data sets; by default NUAT_DATA.")
]
BadImages = Annotated[
    str | None, typer.Option(help="What to do with image files that cannot be read: error or skip.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="On a CPU; by default OMP_NUM_THREADS, or all cores."),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option("--attack", help="autoattack, pgd-20, 'pgd-100(restarts=5)'; repeatable."),
]


def load_own(files: list[Path] | None) -> None:
    """Run a user's files, for what they register."""
    for file in files or []:
        if not file.is_file():
            raise InputError(f"--use {file}: there is no such file")
        runpy.run_path(str(file))


def ball_of(known: Ball | None, eps: str | None, norm: str | None) -> Ball:
    """The threat model asked for, or else the one that is known; linf if neither says."""
    kind = norms[norm] if norm is not None else type(known) if known else norms["linf"]
    if eps is None:
        if known is None or type(known) is not kind:
            raise InputError(f"--norm {norm} needs an --eps of its own, such as --eps 0.5")
        return known
    return kind(parse_eps(eps))
