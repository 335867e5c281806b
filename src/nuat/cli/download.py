"""nuat download."""

from __future__ import annotations

from typing import Annotated

import typer

from nuat.cli.options import DataDir
from nuat.cli.terminal import say
from nuat.data import load
from nuat.data.download import download as fetched
from nuat.data.paths import look_in, root


def download(
    name: Annotated[str, typer.Argument(metavar="DATA", help="cifar10, cifar100 or mnist.")],
    data_dir: DataDir = None,
) -> None:
    """Fetch a published data set into NUAT_DATA or ./data, and read it once to check it."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
    look_in(data_dir)
    place = fetched(name, root())
    splits = load(name)
    sizes = ", ".join(f"{len(splits[split]):,} {split}" for split in ("train", "val", "test"))
    say(f"{place} holds {name}: {sizes}")
