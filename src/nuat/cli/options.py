"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from nuat.errors import InputError
from nuat.runtime.files import check_regular

if TYPE_CHECKING:
    from nuat.threat_models import Ball

Imports = Annotated[
    list[Path] | None,
    typer.Option(
        "--import", help="Run this Python file first, so that what it registers has a name."
    ),
]
Eps = Annotated[str | None, typer.Option(help="Radius of the threat model: 8/255 or 0.03.")]
Norm = Annotated[str | None, typer.Option(help="linf or l2; default: the recipe's.")]
Device = Annotated[
    str | None, typer.Option(help="cuda, cuda:1 or cpu; default: cuda if there is one.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the data sets; default: $NUAT_DATA, or ./data.")
]
BadImages = Annotated[
    str | None, typer.Option(help="What to do with unreadable image files: error or skip.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="field=value of the recipe or its method, such as lam.to=4."),
]
SearchPrecision = Annotated[
    str, typer.Option(help="Precision of the search: fp32, or bf16 verified in float32.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads; default: OMP_NUM_THREADS, or the number of cores."),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help="autoattack, pgd-20, 'pgd-20(restarts=5)'; repeatable. Default: pgd-20, "
        "pgd-100(restarts=5) and gama-100.",
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs; rescales every schedule.")]
MaxTime = Annotated[
    str | None,
    typer.Option(help="Stop after 90s, 30m or 2h with exit status 75; the same command goes on."),
]
NoCudaGraphs = Annotated[
    bool,
    typer.Option(
        "--no-cuda-graphs",
        help="On a GPU, run the steps of training or of attacks without CUDA graphs.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model for the training steps; takes about half a minute on a GPU.",
    ),
]


def apply_common_options(imports: list[Path] | None, data_dir: Path | None = None) -> None:
    """Run the files given with `--import` and use the folder given with `--data-dir`."""
    from nuat.data.paths import set_data_dir

    for file in imports or []:
        _import_file(file)
    set_data_dir(data_dir)


def _import_file(file: Path) -> None:
    """Run a Python file as the module of its name: `own.py` as `own`, so `own:make` is in it."""
    if not file.is_file():
        raise InputError(f"--import {file}: there is no such file")
    name = file.stem
    present = sys.modules.get(name)
    if name in sys.stdlib_module_names or (present and not _is_module_of(present, file)):
        raise InputError(f"--import {file}: there is another Python module {name}; rename the file")
    spec = spec_from_file_location(name, file.absolute())
    if spec is None or spec.loader is None:
        raise InputError(f"--import {file} is not a Python file: its name must end in .py")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _is_module_of(module: ModuleType, file: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and Path(origin).resolve() == file.resolve()


def refuse_torchrun(command: str) -> None:
    """Raise InputError if torchrun started this command, which runs in one process."""
    from nuat.runtime.ranks import world_size

    if world_size() > 1:
        raise InputError(
            f"nuat {command} runs in one process, but torchrun started {world_size()}: run it "
            "without torchrun, which is for nuat train and nuat evaluate"
        )


def resolve_ball(default: Ball | None, eps: str | None, norm: str | None) -> Ball:
    """The threat model of `--eps` and `--norm`; what is not given comes from `default`, or linf."""
    from nuat.threat_models import norms, parse_eps

    if norm is None:
        kind = type(default) if default else norms["linf"]
    else:
        kind = norms[norm if norm in norms else norm.lower()]
    if eps is not None:
        return kind(parse_eps(eps))
    if default is None or type(default) is not kind:
        raise InputError(f"--norm {norm} needs a radius in that norm, such as --eps 0.5")
    return default


SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_seconds(text: str | None) -> float | None:
    """The seconds in `90`, `90s`, `30m` or `2h`, the value of `--max-time`."""
    if text is None:
        return None
    unit = SECONDS.get(text[-1:])
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise InputError(f"--max-time is {text!r}, but must be seconds, or such as 90s, 30m, 2h")
    return seconds


def parse_override(assignment: str) -> tuple[str, str]:
    """The name and the value, as text, in `field=value`, which `--set` takes."""
    field, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"--set takes field=value, such as lam.to=4, not {assignment!r}")
    return field.strip(), text.strip()


def check_output_file(option: str, file: Path) -> None:
    """Raise InputError unless `file` can be written: its folder exists and it is no folder."""
    if not file.parent.is_dir():
        raise InputError(f"{option} {file}: there is no folder {file.parent}")
    try:
        check_regular(file)
    except InputError as error:
        raise InputError(f"{option} {error}") from None
