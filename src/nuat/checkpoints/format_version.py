"""The version number that nuat writes into each file of a run folder (docs/file_formats.md)."""

from __future__ import annotations

from nuat.errors import InputError

FORMAT_VERSION = 2
"""Version of config.json, metrics.jsonl, checkpoint.pt and the metadata of weights files."""


def check_format_version(found: object, source: object) -> None:
    """Raise InputError unless the file `source` has the version that this nuat reads."""
    if found != FORMAT_VERSION:
        raise InputError(
            f"{source} has format_version {found}, but this nuat reads {FORMAT_VERSION}: open it "
            "with the nuat that wrote it"
        )
