"""Where data sets are looked for, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nuat.errors import InputError


@dataclass(frozen=True)
class RemoteFile:
    """A file as published: the addresses it can be had from, and its md5."""

    name: str
    md5: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSource:
    """A published data set.

    Attributes:
        name: what nuat calls it.
        inside: the folder its files are in, such as "cifar-10-batches-py".
        what: what to get from its page.
        page: its official page.
        files: what `nuat download` fetches; archives are unpacked.
    """

    name: str
    inside: str
    what: str
    page: str
    files: tuple[RemoteFile, ...] = ()


def data_dir() -> Path:
    """The folder that holds the data sets: $NUAT_DATA, or ./data."""
    return Path(os.environ.get("NUAT_DATA") or "data")


def set_data_dir(folder: Path | None) -> None:
    """Look for data in this folder from now on, as if NUAT_DATA named it; None changes nothing."""
    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(f"--data-dir {folder}: there is no such folder")
    os.environ["NUAT_DATA"] = str(folder)


def find(data: DatasetSource) -> Path:
    """The folder of a data set, under NAME/ or directly, in `data_dir()`.

    Raises InputError that says where it looked, what to get, and where to lay it.
    """
    places = [data_dir() / data.name / data.inside, data_dir() / data.inside]
    for place in places:
        if place.is_dir():
            return place
    fetch = f"`nuat download {data.name}` fetches it, or get" if data.files else "Get"
    raise InputError(
        f"{data.name} was not found; looked for {' and '.join(map(str, places))}. "
        f"{fetch} {data.what} from {data.page} and lay it there, or name the folder that holds it "
        "with --data-dir or NUAT_DATA"
    )


def checked(file: Path, md5: str) -> bytes:
    """What an official file holds. Raises InputError if it is missing or not the official one."""
    if not file.exists():
        raise InputError(f"{file} is missing: {file.parent} is not the whole data set")
    content = file.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise InputError(f"{file} is not the official file (its md5 differs): fetch it again")
    return content
