"""nuat evaluate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from nuat.checkpoints import LoadedModel, load_model, read_metadata
from nuat.cli.options import (
    Attacks,
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
from nuat.cli.terminal import console, say
from nuat.data import is_known, load_dataset, set_data_dir, slug, with_bad_images
from nuat.errors import InputError
from nuat.evaluation import ATTACKS, EvaluationResult
from nuat.evaluation import evaluate as attacked
from nuat.evaluation.intervals import wilson
from nuat.evaluation.request import parse_attacks
from nuat.rng import derive_seed
from nuat.runtime.device import get_device
from nuat.runtime.ranks import local_device, rank
from nuat.runtime.threads import configure_threads


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    attack: Attacks = None,
    model: Annotated[str | None, typer.Option(help="For weights that do not say.")] = None,
    data: Annotated[str | None, typer.Option(help="By default what it was trained on.")] = None,
    split: str = "test",
    samples: Annotated[
        int | None, typer.Option(help="Only so many images, balanced over the classes.")
    ] = None,
    indices: Annotated[
        str | None, typer.Option(help="Only these images: 0,7,20-29, or a file of such lines.")
    ] = None,
    eps: Eps = None,
    norm: Norm = None,
    batch_size: Annotated[
        str,
        typer.Option(help="Images at a time; halved if memory is short."),
    ] = "auto",
    search_precision: Annotated[
        str, typer.Option(help="fp32, or bf16: a faster tier; falls are verified in float32.")
    ] = "fp32",
    save_adversarial: Annotated[
        bool, typer.Option("--save-adversarial", help="Keep the images that fell, as attacked.")
    ] = False,
    seed: int = 0,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default scores/NAME of the run.")
    ] = None,
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    use: Use = None,
) -> None:
    """Attack a network, image by image. The same command goes on where a killed one was."""
    load_own(use)
    set_data_dir(data_dir)
    other = data is not None and data != read_metadata(source).get("data")
    data = data or _trained_on(source)
    splits = load_dataset(with_bad_images(data, bad_images))
    for note in splits.notes:
        say(note)
    network = load_model(
        source,
        model,
        classes=len(splits.classes),
        channels=splits.train.channels,
        device=get_device(local_device() or device if device in (None, "cuda") else device),
    )
    if network.ball is None and eps is None:
        raise InputError(f"{source} does not say its threat model: give --eps, such as --eps 8/255")
    ball = ball_of(network.ball, eps, norm)
    size = _size(batch_size)
    attacks = parse_attacks(attack or ATTACKS, ball)
    configure_threads(threads)
    told = {"indices": indices, "eps": eps, "norm": norm, "seed": seed or None}
    told["data"] = slug(data) if other else None
    told["search"] = search_precision if search_precision != "fp32" else None
    parts = [split, *([str(samples)] if samples else []), *(attack or [])]
    parts += [f"{key}-{value}" for key, value in told.items() if value is not None]
    name = re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-")
    if len(name) > 120:
        name = f"{name[:100]}-{derive_seed(name):x}"  # a file's name has a limit
    folder = _folder(out, network, name)
    scores = attacked(
        network.model,
        splits[split],
        ball,
        attacks,
        classes=len(splits.classes),
        samples=samples,
        indices=None if indices is None else _places(indices),
        batch_size=size,
        seed=seed,
        out=folder,
        metadata={"data": data, "split": split, "model": network.model_name},
        save_adversarial=save_adversarial,
        search_precision=search_precision,  # type: ignore[arg-type]
        quiet=rank() > 0,
    )
    if rank() > 0:
        return
    _show(scores, f"{source}: {split}, {len(scores.indices)} images, {ball}")
    if network.run is not None and out is None and other:
        say(f"of other data than the run's: kept apart; to see it: nuat report {folder}")
    elif network.run is not None and out is None:
        network.run.save_scores(name, scores.to_dict())
    if folder is not None:
        say(f"verdicts, image by image: {folder}/verdicts.jsonl")
    else:
        say("nothing was written down; --out FOLDER keeps verdicts, image by image")


def _trained_on(source: Path) -> str:
    """The data that is named beside the weights, if this process can read it by that name."""
    data = read_metadata(source).get("data")
    if data is None:
        raise InputError(f"{source} does not say what it was trained on: name it with --data")
    if not is_known(data):
        raise InputError(
            f"{source} was trained on {data!r}, which a Python program handed over: name files or "
            "a function that gives it with --data, or use nuat.evaluation in Python"
        )
    return data


def _folder(out: Path | None, network: LoadedModel, name: str) -> Path | None:
    if out is not None and not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if out is not None and out.is_file():
        raise InputError(f"--out {out} is a file; the results are a folder")
    return out or (network.run.path / "scores" / name if network.run is not None else None)


def _size(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"-?\d+", text):
        raise InputError(f"--batch-size is {text!r}, but must be auto or a whole number from 1 up")
    return int(text)


def _places(text: str) -> list[int]:
    """`0,7,20-29`, or what such lines of a file say."""
    if len(text) < 256 and Path(text).is_file():
        text = ",".join(Path(text).read_text().split())
    places: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise InputError(f"--indices takes places such as 0,7,20-29, or a file; not {part!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--indices {part.strip()} runs backwards; write {last}-{first}")
        places += range(first, last + 1)
    return places


def _show(scores: EvaluationResult, title: str) -> None:
    """The table, and what a reader should know."""
    shown = Table("", "images that stand", "", "95% interval", title=title)
    total = len(scores.indices)
    counts = {"clean": round(scores.clean_accuracy * total)}
    counts |= {name: sum(stood) for name, stood in scores.robust.items()}
    if len(scores.robust) > 1:
        counts["worst of them"] = round(scores.worst_case_accuracy * total)
    for name, count in counts.items():
        low, high = wilson(count, total)
        cells = f"{count / total:.1%}", f"{count}", f"{low:.1%} to {high:.1%}"
        shown.add_row(name, *cells)
        for row in _parts(scores, name):
            shown.add_row(*row, style="dim")
    console.print(shown)
    for note in scores.notes:
        say(f"note: {note}")


def _parts(scores: EvaluationResult, name: str) -> list[tuple[str, ...]]:
    """For an ensemble, a row for each part: what is left standing after it."""
    parts = scores.parts.get(name, {})
    left = [int(part["images"] - part["broken"]) for part in parts.values()]
    share = [f"{count / len(scores.indices):.1%}" for count in left]
    rows = zip(parts, share, left, strict=True)
    return [(f"  after {part}", text, str(count), "") for part, text, count in rows if part != name]
