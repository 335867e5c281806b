"""The command `nuat doctor`."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version

import typer
from rich.table import Table

from nuat.cli.options import DataDir, apply_common_options
from nuat.cli.terminal import console, print_line

EXTRAS = ("demo", "vision", "export", "hub")
SELF_TEST_IMAGES = 100


def doctor_command(data_dir: DataDir = None) -> None:
    """Show versions, devices, extras and data that are found, and test nuat on this machine.

    The exit status is 1 if the test fails.
    """
    apply_common_options(None, data_dir)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in [*_versions(), *_devices(), *_extras(), *_data()]:
        table.add_row(name, text)
    console.print(table)
    problem = _self_test()
    print_line(f"self-test  {problem or 'passed'}")
    if problem:
        raise typer.Exit(1)


def _versions() -> list[tuple[str, str]]:
    from nuat.runtime.versions import versions

    return [*versions().items(), ("system", platform.platform())]


def _devices() -> list[tuple[str, str]]:
    import torch

    lines = [("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads by default")]
    count = torch.cuda.device_count()
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        lines.append((f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"))
    return lines if count else [*lines, ("GPU", "none; training and attacks run on the CPU")]


def _extras() -> list[tuple[str, str]]:
    """The packages of each extra with their versions, and how to install those that lack."""
    try:
        requirements = requires("nuat") or []
    except PackageNotFoundError:
        return [("extras", "unknown: nuat runs from its source without an installation")]
    lines = []
    for extra in EXTRAS:
        names = [
            line.partition(">")[0]
            for line in requirements
            if line.replace('"', "'").endswith(f"extra == '{extra}'")
        ]
        found = [(name, _installed(name)) for name in names]
        text = ", ".join(f"{name} {number}" for name, number in found if number)
        if missing := [name for name, number in found if not number]:
            text += (
                f"{'; ' * bool(text)}missing: {', '.join(missing)} (pip install 'nuat[{extra}]')"
            )
        lines.append((f"extra {extra}", text))
    return lines


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _data() -> list[tuple[str, str]]:
    """Where each data set that has to be there was found."""
    from nuat.data import load_dataset
    from nuat.errors import InputError

    lines = []
    for name in ("digits", "mnist", "cifar10", "cifar100"):
        try:
            splits = load_dataset(name)
            text = f"{len(splits.train):,} training and {len(splits.test):,} test images"
        except InputError:
            text = f"not found; nuat download {name}, or --data-dir"
        lines.append((f"data {name}", text))
    return lines


def _self_test() -> str:
    """Attack a model that comes with nuat; return what is wrong, or ""."""
    from nuat.checkpoints import load_model
    from nuat.checkpoints.pretrained import list_pretrained
    from nuat.data import load_dataset
    from nuat.errors import InputError
    from nuat.evaluation import evaluate

    name = "nuat:digits/nuat-wa"
    try:
        images = load_dataset("digits").test
    except InputError as error:
        return f"not run: {error}"
    loaded = load_model(name, device=None)
    assert loaded.ball is not None
    result = evaluate(loaded.model, images, loaded.ball, ["pgd-20"])
    expected = list_pretrained()[name].accuracy
    figures = {"clean": result.clean_accuracy, "pgd-20": result.robust_accuracy("pgd-20")}
    for what, share in figures.items():
        # another processor may round otherwise, and one image is 0.25 %
        if abs(100 * share - expected[what]) > 1:
            return f"FAILED: {what} of {name} is {100 * share:.1f} %, not {expected[what]:.1f} %"
    return ""
