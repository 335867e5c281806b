"""Fetch a published data set: what was fetched is gone on with, checked, and put in place whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from nuat.data.cifar10 import OFFICIAL as CIFAR10
from nuat.data.cifar100 import OFFICIAL as CIFAR100
from nuat.data.mnist import OFFICIAL as MNIST
from nuat.data.paths import DatasetSource, RemoteFile, data_dir
from nuat.errors import InputError, unknown_name
from nuat.runtime.progress import Progress

OFFICIAL = {data.name: data for data in (CIFAR10, CIFAR100, MNIST)}
"""What can be fetched."""
CHUNK = 1 << 16
MEGABYTE = 1 << 20
SECONDS = 30.0


def download(name: str, into: Path | None = None) -> Path:
    """Fetch a data set to `into`/NAME, by default $NUAT_DATA/NAME or ./data/NAME.

    An interrupted download goes on where it was. Every file is checked against its published md5
    before it gets its name; an archive is unpacked beside its place and moved there whole.

    Returns:
        The folder that `load` finds.

    Raises:
        InputError: there is no such data set, it cannot be reached, or is not the published one.
    """
    if name not in OFFICIAL:
        raise unknown_name("data set to download", name, OFFICIAL)
    data = OFFICIAL[name]
    home = (into or data_dir()) / name
    place = home / data.inside
    if place.is_dir() and data.files[0].name.endswith(".tar.gz"):
        return place
    for remote in data.files:
        if remote.name.endswith(".tar.gz"):
            _unpack(_fetch(remote, home, data), place)
        elif not (place / remote.name).exists():
            _fetch(remote, place, data)
    return place


def _fetch(remote: RemoteFile, folder: Path, data: DatasetSource) -> Path:
    """The file, whole and checked, from the first address that has it."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    reasons = []
    for url in remote.urls:
        try:
            partial = _stream(url, target.with_name(f"{target.name}.partial"))
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
            reasons.append(f"{url}: {error}")
            continue
        if _md5(partial) == remote.md5:
            os.replace(partial, target)
            return target
        partial.unlink()
        reasons.append(f"{url}: what came is not the official file (its md5 differs)")
    for each in made:
        if not any(each.iterdir()):
            each.rmdir()
    by_hand = "unpack it in" if remote.name.endswith(".tar.gz") else "lay it in"
    raise InputError(
        f"{remote.name} could not be fetched: {'; '.join(reasons)}. The same command goes on; or "
        f"get {data.what} from {data.page} by hand and {by_hand} {folder}"
    )


def _stream(url: str, partial: Path) -> Path:
    """Fetch what is not there yet. Raises OSError if the connection ends before the file does."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is no more than what is there
            return partial
        raise
    with response:
        if response.status != 206:
            done = 0
        total = done + int(response.headers.get("Content-Length") or 0)
        with partial.open("ab" if done else "wb") as file:
            _copy(response, file, url.rpartition("/")[2], done, total)
    if partial.stat().st_size < total:
        raise OSError(f"the connection ended after {partial.stat().st_size:,} of {total:,} bytes")
    return partial


def _copy(response: IO[bytes], file: IO[bytes], title: str, done: int, total: int) -> None:
    with Progress(f"{title} (MB)", total // MEGABYTE, done // MEGABYTE) as progress:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            before, done = done, done + len(chunk)
            progress.advance(done // MEGABYTE - before // MEGABYTE)


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, place: Path) -> None:
    """Unpack beside the place, then move the folder there; the archive is not needed any more."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as beside:
        with tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")
        os.replace(Path(beside) / place.name, place)
    archive.unlink()
