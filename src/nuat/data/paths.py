"""The folder of the data sets, and the verification of published files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nuat.errors import InputError


@dataclass(frozen=True)
class RemoteFile:
    """A published file, with its checksum in hexadecimal and its addresses, the best one first."""

    name: str
    md5: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSource:
    """Where a published data set comes from.

    Its files are in `subfolder`, such as "cifar-10-batches-py". Error messages say what to get from
    its home page, the `description`. `nuat download` fetches `files` and unpacks archives.
    """

    name: str
    subfolder: str
    description: str
    homepage: str
    files: tuple[RemoteFile, ...] = ()


def data_dir() -> Path:
    """Return the folder of the data sets: $NUAT_DATA, or ./data."""
    return Path(os.environ.get("NUAT_DATA") or "data")


def set_data_dir(folder: Path | None) -> None:
    """Set $NUAT_DATA for this process and its workers; None changes nothing.

    Raises:
        InputError: the folder does not exist.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(f"--data-dir {folder}: there is no such folder")
    os.environ["NUAT_DATA"] = str(folder)


def locate(source: DatasetSource) -> Path:
    """Return the folder of a data set: DATA_DIR/NAME/SUBFOLDER or DATA_DIR/SUBFOLDER.

    Raises:
        InputError: there is no such folder; the message says where to get the data set.
    """
    candidates = [data_dir() / source.name / source.subfolder, data_dir() / source.subfolder]
    for folder in candidates:
        if folder.is_dir():
            return folder
    get = f"Run `nuat download {source.name}`, or get" if source.files else "Get"
    raise InputError(
        f"{source.name} was not found; looked for {' and '.join(map(str, candidates))}. "
        f"{get} {source.description} from {source.homepage} and put it there, or name the folder "
        "of your data sets with --data-dir or NUAT_DATA"
    )


def read_verified(file: Path, md5: str) -> bytes:
    """Return the content of a published file.

    Raises:
        InputError: the file is missing or its MD5 checksum differs.
    """
    if not file.exists():
        raise InputError(f"{file} is missing: the data set in {file.parent} is incomplete")
    content = file.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise InputError(
            f"{file} is not the official file (its MD5 checksum differs): download it again"
        )
    return content
