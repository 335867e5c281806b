"""Checksums of what a file holds, so that a changed byte is noticed when the file is read.

A checksum is stored as the last field, `checksum`, of what it protects: a JSON object, a line of
JSON, the metadata of a .safetensors file, or the dict of a checkpoint. It covers the contents, not
the bytes of the file: the order of keys, white space and the device of a tensor do not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nuat.errors import InputError

KEY = "checksum"


def checksum(value: Any) -> str:
    """Return a hash, 16 hexadecimal digits, of nested dicts and lists of JSON values and tensors.

    A tuple counts as a list, and a key of a dict as text, because JSON keeps them so.
    """
    blake = hashlib.blake2b(digest_size=8)
    for part in _parts(value):
        blake.update(part)
    return blake.hexdigest()


def with_checksum(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields and, as the last one, their checksum."""
    return {**fields, KEY: checksum(fields)}


def without_checksum(fields: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the fields without their checksum.

    Raises:
        InputError: the checksum is missing or is not theirs; the message names `source`.
    """
    rest = {name: value for name, value in fields.items() if name != KEY}
    check_checksum(rest, fields.get(KEY), source)
    return rest


def check_checksum(value: Any, stored: object, source: object) -> None:
    """Raise InputError, which names `source`, unless `stored` is the checksum of `value`."""
    if stored is None:
        raise InputError(f"{source} is damaged, or nuat did not write it: it has no checksum")
    if stored != checksum(value):
        raise InputError(
            f"{source} is damaged, or was changed by another program: its checksum is not that of "
            "its contents"
        )


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(value, Tensor):
        yield f"{value.dtype} {list(value.shape)}".encode()
        plain = value.detach().cpu().reshape(-1).contiguous()
        yield plain.view(torch.uint8).numpy().data if len(plain) else b""
        return
    try:
        # whole trees of JSON in one call, which is much faster than one for each number
        yield json.dumps(value, sort_keys=True).encode()
    except (TypeError, ValueError):  # a tensor in it, or keys of several types
        if isinstance(value, Mapping):
            for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
                yield f"{key}:".encode()
                yield from _parts(item)
        elif isinstance(value, list | tuple):
            yield f"list of {len(value)}:".encode()
            for item in value:
                yield from _parts(item)
        else:
            yield repr(value).encode()
