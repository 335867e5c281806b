"""The command `nuat figures`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nuat.cli.options import DataDir, Device, Imports, Threads, apply_common_options
from nuat.cli.terminal import print_line
from nuat.errors import InputError

if TYPE_CHECKING:
    from nuat.checkpoints import LoadedModel, Run

Names = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="confusion, surface, example, radii or switching; repeatable. Default: all.",
    ),
]


def figures_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    only: Names = None,
    images: Annotated[
        int, typer.Option(min=1, help="Number of test images, balanced over the classes.")
    ] = 200,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A path or function that runs name as their data; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images and of all noise.")] = 0,
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    imports: Imports = None,
) -> None:
    """Measure and draw what the network of a run does: SVG files in RUN/figures.

    Confusion under the nuclear and the Frobenius attack, the loss around an image, a targeted
    example, robust accuracy against eps, and when NuAT-H used two steps. `nuat report` shows them.
    """
    apply_common_options(imports, data_dir)
    from nuat.data import trust_dataset
    from nuat.report import pictures
    from nuat.runtime.threads import configure_threads

    names = only or list(pictures.NAMES)
    if unknown := [name for name in names if name not in pictures.NAMES]:
        raise InputError(f"--only {unknown[0]}: there are {', '.join(pictures.NAMES)}")
    for name in data or []:
        trust_dataset(name)
    configure_threads(threads)
    for path in runs:
        for file in _draw_run(path, names, images, seed, device):
            print_line(str(file))


def _draw_run(
    path: Path, names: Sequence[str], images: int, seed: int, device: str | None
) -> list[Path]:
    """Measure the pictures of a run, store their numbers, and write one SVG file for each."""
    from nuat.checkpoints import Run, load_model
    from nuat.report import pictures
    from nuat.runtime.device import get_device
    from nuat.runtime.files import atomic_write, check_inside

    run, data = Run.open(path), {}
    if measured := [name for name in names if name in pictures.MEASURED]:
        loaded = load_model(path, device=get_device(device))
        data = _measure(loaded, run, measured, images, seed)
        pictures.save(path, data)
    charts = pictures.draw(data, run.metrics if "switching" in names else ())
    if not charts:
        raise InputError(f"{path} was not trained with NuAT-H, so there is no switching to draw")
    folder = path / "figures"
    check_inside(folder, path)
    folder.mkdir(exist_ok=True)
    files = []
    for name, chart in charts.items():
        svg = base64.b64decode(chart["src"].partition(",")[2])
        files.append(folder / f"{name}.svg")
        atomic_write(files[-1], partial(Path.write_bytes, data=svg))
    return files


def _measure(
    loaded: LoadedModel, run: Run, names: Sequence[str], images: int, seed: int
) -> dict[str, Any]:
    """The numbers of the pictures, on the test images of the run's own data."""
    from nuat.data import check_recorded_dataset, load_dataset
    from nuat.data.classes import match_classes
    from nuat.report import pictures

    name, classes = run.config["data"]["name"], run.config["data"]["classes"]
    check_recorded_dataset(name, run.path)
    if loaded.ball is None:
        raise InputError(f"{run.path} has no threat model")
    test, _ = match_classes(load_dataset(name).test, classes)
    # the weight at the end of training; other methods have none
    lam = (run.metrics or [{}])[-1].get("lam", pictures.DEFAULT_LAM)
    return pictures.measure(
        loaded.model, test, classes, loaded.ball, names=names, count=images, lam=lam, seed=seed
    )
