"""nuat download."""

from __future__ import annotations

from typing import Annotated

import typer

from nuat.cli.options import DataDir
from nuat.cli.terminal import say
from nuat.data import load_dataset
from nuat.data.download import download as fetched
from nuat.data.paths import root, set_data_dir


def download(
    name: Annotated[str, typer.Argument(metavar="DATA", help="cifar10, cifar100 or mnist.")],
    data_dir: DataDir = None,
) -> None:
    """Fetch a published data set into NUAT_DATA or ./data, and read it once to check it."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
    set_data_dir(data_dir)
    place = fetched(name, root())
    splits = load_dataset(name)
    sizes = ", ".join(f"{len(splits[split]):,} {split}" for split in ("train", "val", "test"))
    say(f"{place} holds {name}: {sizes}")
