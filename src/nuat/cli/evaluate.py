"""The command `nuat evaluate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nuat.cli.options import (
    Attacks,
    BadImages,
    DataDir,
    Device,
    Eps,
    Imports,
    MaxTime,
    NoCudaGraphs,
    Norm,
    SearchPrecision,
    Threads,
    apply_common_options,
    parse_seconds,
    resolve_ball,
)
from nuat.cli.sources import choose_data, load_source, load_splits
from nuat.cli.terminal import console, print_line
from nuat.errors import InputError
from nuat.runtime.files import check_inside, read_text

if TYPE_CHECKING:
    from nuat.checkpoints import LoadedModel
    from nuat.evaluation import EvaluationResult

MAX_NAME_LENGTH = 120
MAX_DIGITS = 8

Split = Annotated[str, typer.Option(help="train, val or test.")]
Samples = Annotated[
    int | None, typer.Option(help="Number of images, balanced over the classes; default: all.")
]
Indices = Annotated[
    str | None, typer.Option(help="Indices of the images: 0,7,20-29, or a file of them.")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images per batch; halved if memory does not suffice.")
]
SaveAdversarial = Annotated[
    bool, typer.Option("--save-adversarial", help="Save the adversarial images, also as PNG.")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the results; default: scores/NAME in the run.")
]


def evaluate_command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    attack: Attacks = None,
    model: Annotated[str | None, typer.Option(help="For weights without metadata.")] = None,
    data: Annotated[str | None, typer.Option(help="Default: the training data.")] = None,
    split: Split = "test",
    samples: Samples = None,
    indices: Indices = None,
    eps: Eps = None,
    norm: Norm = None,
    batch_size: BatchSize = None,
    search_precision: SearchPrecision = "fp32",
    no_cuda_graphs: NoCudaGraphs = False,
    save_adversarial: SaveAdversarial = False,
    seed: Annotated[int, typer.Option(help="Seed of the attacks and of --samples.")] = 0,
    device: Device = None,
    max_time: MaxTime = None,
    threads: Threads = None,
    out: Out = None,
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    imports: Imports = None,
) -> None:
    """Attack a model, image by image. Run the same command again to resume."""
    apply_common_options(imports, data_dir)
    from nuat.data import dataset_slug
    from nuat.evaluation import DEFAULT_ATTACKS, evaluate
    from nuat.evaluation.request import parse_attacks
    from nuat.runtime.ranks import rank
    from nuat.runtime.threads import configure_threads

    data, is_run_data = choose_data(source, data)
    splits = load_splits(data, bad_images)
    loaded = load_source(source, model, splits, device)
    if loaded.ball is None and eps is None:
        raise InputError(f"{source} has no threat model: give --eps, such as --eps 8/255")
    ball = resolve_ball(loaded.ball, eps, norm)
    attacks = parse_attacks(attack or DEFAULT_ATTACKS, ball)
    name = _results_name(
        [split, *([str(samples)] if samples else []), *(attacks if attack else [])],
        indices=indices,
        eps=eps,
        norm=norm,
        seed=seed or None,
        data=None if is_run_data else dataset_slug(data),
        search=None if search_precision == "fp32" else search_precision,
    )
    folder = _results_folder(out, loaded, name)
    if folder is None and rank() == 0:
        print_line("The result will not be saved; --out FOLDER saves it, image by image.")
    configure_threads(threads)
    result = evaluate(
        loaded.model,
        splits[split],
        ball,
        attacks,
        classes=len(splits.classes),
        samples=samples,
        indices=None if indices is None else _parse_indices(indices),
        batch_size=batch_size,
        seed=seed,
        out=folder,
        metadata={"data": data, "split": split, "model": loaded.model_name},
        save_adversarial=save_adversarial,
        search_precision=search_precision,  # type: ignore[arg-type]  # evaluate checks the value
        cuda_graphs=False if no_cuda_graphs else None,
        max_time=parse_seconds(max_time),
        quiet=rank() > 0,
    )
    if rank() == 0:
        _print_result(result, f"{source}: {split}, {len(result.indices)} images, {ball}")
        if loaded.run is not None and out is None and is_run_data:
            loaded.run.save_scores(name, result.to_dict())
        _print_folder(folder, is_in_reports=is_run_data or out is not None)


def _results_name(parts: list[str], **options: object) -> str:
    """The name of the results folder: the parts and the options given, such as test-50-eps-0.1."""
    parts = [*parts, *(f"{key}-{value}" for key, value in options.items() if value is not None)]
    name = re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-")
    if len(name) <= MAX_NAME_LENGTH:
        return name
    from nuat.rng import derive_seed

    return f"{name[:100]}-{derive_seed(name):x}"


def _results_folder(out: Path | None, loaded: LoadedModel, name: str) -> Path | None:
    """The folder given with `--out`, or a folder in the run; None for other weights."""
    if out is None:
        if loaded.run is None:
            return None
        folder = loaded.run.path / "scores" / name
        check_inside(folder, loaded.run.path)
        return folder
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if out.is_file():
        raise InputError(f"--out {out} is a file, but must be a folder")
    return out


def _parse_indices(text: str) -> list[int]:
    """The indices in `0,7,20-29`, or in the file of that name."""
    # a list of indices may be too long for a file's name, which `is_file` answers with an OSError
    if len(text) < 256 and Path(text).is_file():
        text = ",".join(read_text(Path(text)).split())
    indices: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise InputError(f"--indices takes 0,7,20-29 or a file, not {part[:40]!r}")
        if any(len(number or "") > MAX_DIGITS for number in match.groups()):
            raise InputError(f"--indices {part[:40]}: an index has at most {MAX_DIGITS} digits")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--indices {part.strip()} runs backwards; write {last}-{first}")
        indices += range(first, last + 1)
    return indices


def _print_result(result: EvaluationResult, title: str) -> None:
    """Print accuracies with their 95 % Wilson intervals, and what a reader should know."""
    from nuat.attacks import parse_attack
    from nuat.evaluation.intervals import wilson
    from nuat.runtime.text import escape_unprintable
    from nuat.threat_models import parse_ball

    total = len(result.indices)
    counts = {"clean": round(result.clean_accuracy * total)}
    counts |= {name: sum(robust) for name, robust in result.robust.items()}
    if len(result.robust) > 1:
        counts["worst case"] = round(result.worst_case_accuracy * total)
    headings = "", "accuracy", "images", "95% interval", "in 8 bits"
    table = Table(*headings, title=escape_unprintable(title))
    for name, count in counts.items():
        low, high = wilson(count, total)
        eight_bit = result.robust_8bit.get(name)
        cells = f"{count / total:.1%}", f"{count}", f"{low:.1%} to {high:.1%}"
        in_8_bits = "" if eight_bit is None else f"{sum(eight_bit) / total:.1%}"
        table.add_row(escape_unprintable(name), *cells, in_8_bits)
        # of an ensemble, what remains robust after each part
        for part, figures in result.parts.get(name, {}).items():
            if part != name:
                left = int(figures["images"] - figures["broken"])
                cells = f"{left / total:.1%}", f"{left}", ""
                table.add_row(f"  after {escape_unprintable(part)}", *cells, style="dim")
    console.print(table)
    if result.outside_8bit:
        print_line(_explain_8_bits(result))
    for name in result.attacks:
        if description := parse_attack(name, parse_ball(result.ball)).describe():
            print_line(f"{name}: {description}")
    for note in result.notes:
        print_line(f"note: {note}")


def _explain_8_bits(result: EvaluationResult) -> str:
    """What the column `in 8 bits` is, and how many images rounding moves out of the ball."""
    pairs = zip(result.labels, result.predicted, strict=True)
    correct = [label == predicted for label, predicted in pairs]
    robust = [result.robust[name] for name in result.outside_8bit]
    broken = sum(a and not b for column in robust for a, b in zip(correct, column, strict=True))
    return (
        "in 8 bits: adversarial images rounded to multiples of 1/255, as in a PNG file, and "
        f"classified again; {sum(result.outside_8bit.values())} of {broken} adversarial images "
        f"leave {result.ball} by that, which moves a pixel by up to 0.5/255"
    )


def _print_folder(folder: Path | None, is_in_reports: bool) -> None:
    if folder is None:
        return
    if not is_in_reports:
        print_line("These are not the run's own data, so its reports omit this result.")
        print_line(f"To see it: nuat report {folder}")
    print_line(f"per-image results: {folder}/verdicts.jsonl")
