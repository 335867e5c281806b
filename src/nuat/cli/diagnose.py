"""The command `nuat diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from nuat.cli.options import (
    BadImages,
    DataDir,
    Device,
    Eps,
    Imports,
    Norm,
    Threads,
    apply_common_options,
    check_output_file,
    parse_seconds,
    refuse_torchrun,
    resolve_ball,
)
from nuat.cli.sources import choose_data, load_source, load_splits
from nuat.cli.terminal import console, print_line
from nuat.errors import InputError
from nuat.runtime.files import check_inside
from nuat.runtime.signals import OUT_OF_TIME

if TYPE_CHECKING:
    from nuat.checkpoints import LoadedModel
    from nuat.diagnosis import Check, Diagnosis

FAILED = 1
"""The exit status if a check fails."""
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

Samples = Annotated[int, typer.Option(min=1, help="Number of images, balanced over the classes.")]
TransferFrom = Annotated[
    Path | None,
    typer.Option(help="Run or weights of another model, whose adversarial images are tried."),
]
MaxTime = Annotated[
    str | None, typer.Option(help="After 90s, 30m or 2h, skip the checks that are left.")
]


def diagnose_command(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_WEIGHTS")],
    model: Annotated[str | None, typer.Option(help="For weights without metadata.")] = None,
    data: Annotated[str | None, typer.Option(help="Default: the training data.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    samples: Samples = 200,
    eps: Eps = None,
    norm: Norm = None,
    transfer_from: TransferFrom = None,
    seed: Annotated[int, typer.Option(help="Seed of the attacks and of the sample.")] = 0,
    device: Device = None,
    max_time: MaxTime = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file; default: diagnosis.json in the run.")
    ] = None,
    data_dir: DataDir = None,
    bad_images: BadImages = None,
    imports: Imports = None,
) -> None:
    """Check whether a robust accuracy is real. The exit status is 1 if a check fails."""
    refuse_torchrun("diagnose")
    apply_common_options(imports, data_dir)
    seconds = parse_seconds(max_time)
    if out is not None:
        check_output_file("--out", out)
    from nuat.diagnosis import diagnose
    from nuat.runtime.threads import configure_threads

    data, is_run_data = choose_data(source, data)
    splits = load_splits(data, bad_images)
    loaded = load_source(source, model, splits, device)
    if loaded.ball is None and eps is None:
        raise InputError(f"{source} has no threat model: give --eps, such as --eps 8/255")
    ball = resolve_ball(loaded.ball, eps, norm)
    other = None
    if transfer_from is not None:
        other = load_source(transfer_from, None, splits, device).model
    file = out or _file_in_run(loaded, is_run_data)
    configure_threads(threads)
    diagnosis = diagnose(
        loaded.model,
        splits[split],
        ball,
        classes=len(splits.classes),
        samples=samples,
        transfer_from=other,
        seed=seed,
        metadata={"data": data, "split": split, "model": loaded.model_name},
        max_time=seconds,
        quiet=False,
    )
    _print_diagnosis(diagnosis, f"{source}: {split}, {len(diagnosis.indices)} images, {ball}")
    if file is None:
        print_line("The diagnosis is not saved; --out FILE saves it.")
    else:
        diagnosis.write(file)
        print_line(f"diagnosis: {file}")
    if diagnosis.verdict == "fail":
        raise typer.Exit(FAILED)
    if diagnosis.ran_out_of_time:
        raise typer.Exit(OUT_OF_TIME)


def _file_in_run(loaded: LoadedModel, is_run_data: bool) -> Path | None:
    """The file in the run; None for other weights, and for other data than those of the run."""
    from nuat.diagnosis.result import FILE_NAME

    if loaded.run is None or not is_run_data:
        return None
    file = loaded.run.path / FILE_NAME
    check_inside(file, loaded.run.path)
    return file


def _print_diagnosis(diagnosis: Diagnosis, title: str) -> None:
    """Print the checks as a table, the advice of those that do not pass, and the verdict."""
    from nuat.runtime.text import escape_unprintable

    table = Table(
        "check", "verdict", "measured", "normal", title=escape_unprintable(title), show_lines=True
    )
    for check in diagnosis.checks:
        table.add_row(*_cells(check))
    console.print(table)
    advice: dict[str, list[str]] = {}
    for check in diagnosis.checks:
        if check.verdict in ("warn", "fail"):
            advice.setdefault(check.advice, []).append(check.name)
    for text, names in advice.items():
        print_line(f"{', '.join(names)}: {text}")
    print_line(f"{diagnosis.verdict}: {diagnosis.summary}")


def _cells(check: Check) -> list[Text]:
    from nuat.runtime.text import escape_unprintable

    verdict = Text(check.verdict, style=STYLES[check.verdict])
    measured = Text(escape_unprintable(check.measured))  # it may quote an error of the network
    return [Text(check.name), verdict, measured, Text(check.normal)]
