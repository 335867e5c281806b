"""The download of published data sets.

torch.hub.download_url_to_file is not used: it neither resumes a download nor checks MD5.
"""

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

from nuat.data.cifar import CIFAR10_SOURCE, CIFAR100_SOURCE
from nuat.data.mnist import MNIST_SOURCE
from nuat.data.paths import DatasetSource, RemoteFile, data_dir
from nuat.data.svhn import SVHN_SOURCE
from nuat.errors import InputError, unknown_name
from nuat.runtime.progress import Progress

SOURCES = {
    source.name: source for source in (CIFAR10_SOURCE, CIFAR100_SOURCE, MNIST_SOURCE, SVHN_SOURCE)
}
"""The data sets that can be downloaded."""
CHUNK_BYTES = 1 << 16
MEGABYTE = 1 << 20
TIMEOUT_SECONDS = 30.0


def download(name: str, target: Path | None = None) -> Path:
    """Download a data set to TARGET/NAME.

    An interrupted download resumes at the next call. Every file is verified against its published
    MD5 checksum before it gets its final name; an archive is unpacked into a temporary folder that
    is then moved into place.

    Args:
        name: "cifar10", "cifar100", "mnist" or "svhn".
        target: the folder of the data sets; by default $NUAT_DATA or ./data.

    Returns:
        The folder that `load_dataset` reads.

    Raises:
        InputError: the name is unknown, no server can be reached, or a checksum differs.
    """
    if name not in SOURCES:
        raise unknown_name("data set to download", name, SOURCES)
    source = SOURCES[name]
    parent = (target or data_dir()) / name
    folder = parent / source.subfolder
    if folder.is_dir() and _is_archive(source.files[0]):
        return folder
    for file in source.files:
        if _is_archive(file):
            _unpack(_fetch(file, parent, source), folder)
        elif not (folder / file.name).exists():
            _fetch(file, folder, source)
    return folder


def _is_archive(file: RemoteFile) -> bool:
    return file.name.endswith(".tar.gz")


def _fetch(file: RemoteFile, folder: Path, source: DatasetSource) -> Path:
    """Download and verify a file from the first address that has it."""
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    partial = target.with_name(f"{target.name}.partial")
    failures = []
    for url in file.urls:
        try:
            _resume_download(url, partial)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
            failures.append(f"{url}: {error}")
            continue
        if _md5(partial) == file.md5:
            os.replace(partial, target)
            return target
        partial.unlink()
        failures.append(f"{url}: this is not the official file (its MD5 checksum differs)")
    for path in new_folders:
        if not any(path.iterdir()):
            path.rmdir()
    action = "unpack it" if _is_archive(file) else "put it"
    raise InputError(
        f"{file.name} could not be downloaded: {'; '.join(failures)}. Run the same command again "
        f"to resume, or get {source.description} from {source.homepage} by hand and {action} in "
        f"{folder}"
    )


def _resume_download(url: str, partial: Path) -> None:
    """Append the missing bytes to `partial`. Raises OSError if the connection ends early."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # no bytes are missing; the checksum decides whether the file is right
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server does not support ranges and sends the file from its start
        total = done + int(response.headers.get("Content-Length") or 0)
        with partial.open("ab" if done else "wb") as file:
            _copy(response, file, url.rpartition("/")[2], done, total)
    received = partial.stat().st_size
    if received < total:
        raise OSError(f"the connection ended after {received:,} of {total:,} bytes")


def _copy(response: IO[bytes], file: IO[bytes], title: str, done: int, total: int) -> None:
    with Progress(f"{title} (MB)", total // MEGABYTE, done // MEGABYTE) as progress:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            before, done = done, done + len(chunk)
            progress.advance(done // MEGABYTE - before // MEGABYTE)


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into a temporary folder, move the result to `folder`, and delete the archive."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as temporary:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        os.replace(Path(temporary) / folder.name, folder)
    archive.unlink()
