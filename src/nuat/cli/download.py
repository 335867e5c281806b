"""The command `nuat download`."""

from __future__ import annotations

from typing import Annotated

import typer

from nuat.cli.options import DataDir, apply_common_options
from nuat.cli.terminal import print_line


def download_command(
    name: Annotated[str, typer.Argument(metavar="DATA", help="cifar10, cifar100, mnist or svhn.")],
    data_dir: DataDir = None,
) -> None:
    """Download a published data set to $NUAT_DATA or ./data, and read it once to check it."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
    apply_common_options(None, data_dir)
    from nuat.data import load_dataset
    from nuat.data.download import download

    folder = download(name)
    splits = load_dataset(name)
    sizes = ", ".join(f"{len(splits[split]):,} {split}" for split in ("train", "val", "test"))
    print_line(f"{name} is in {folder}: {sizes} images")
