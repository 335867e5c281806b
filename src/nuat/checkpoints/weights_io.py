"""Reading and writing weights files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from nuat.checkpoints.fields import parse_metadata
from nuat.checkpoints.format_version import FORMAT_VERSION, check_format_version
from nuat.errors import InputError
from nuat.nn.state_dict import load_plain_state_dict, plain_state_dict
from nuat.runtime.checksums import KEY, check_checksum, checksum
from nuat.runtime.files import atomic_write

WEIGHTS_FILE = "model.safetensors"
"""Name of the weights file in a run folder and in an exported folder."""


def write_weights(target: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights and their metadata to a .safetensors file, atomically.

    Equal weights and metadata make the same file, byte for byte.

    Raises:
        InputError: the format cannot hold one of the weights.
    """
    content = _serialize(weights, metadata)
    atomic_write(target, lambda file: file.write_bytes(content))


def check_weights(model: nn.Module) -> None:
    """Raise InputError unless the weights of a model can be written and read back into it."""
    weights = load(_serialize(plain_state_dict(model), {}))
    try:
        load_plain_state_dict(model, weights)
    except Exception as error:  # a module may define how its weights are loaded
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the network cannot read back its own weights: {reason}") from error


def _serialize(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    tensors = {}
    for key, value in weights.items():
        if not isinstance(value, Tensor) or value.is_quantized or value.layout != torch.strided:
            raise InputError(
                f"the weights cannot be written: {key} in the state dict is a "
                f"{_kind(value)}, and a weights file holds dense tensors alone"
            )
        # a copy of each, since tied weights share memory and the format holds no shared tensors
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    # "format": "pt" is the convention of safetensors; transformers and others require it
    header = {"format": "pt", "format_version": str(FORMAT_VERSION)} | dict(metadata)
    header[KEY] = checksum([tensors, header])
    try:
        return _with_metadata(save(tensors), header)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"the weights cannot be written: {error}") from error


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a file without any; safetensors itself writes them in a random order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(content[8:end])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return "quantized tensor" if value.is_quantized else f"tensor in the layout {value.layout}"


def read_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights in a .safetensors or state-dict file, and their metadata.

    A state-dict file has no metadata. It may hold the state dict as an entry of a dict, such as
    "state_dict" or "model", if no other entry is one. Pickled code is never executed.

    Raises:
        InputError: the file does not exist, holds anything but tensors by name, or is one that nuat
            wrote and that has changed since.
    """
    path = _existing(path)
    if path.suffix == ".safetensors":
        metadata = read_file_metadata(path)
        with _readable(path):
            weights = load_file(path)
        _check_checksum(weights, path)
        return weights, metadata
    with _readable(path):
        weights = torch.load(path, map_location="cpu", weights_only=True)
    return _find_state_dict(weights, path), {}


def read_file_metadata(path: Path | str) -> dict[str, str]:
    """Return the metadata of a weights file without loading its tensors.

    Their checksum covers the tensors too, so that `read_weights` alone can check it. Only
    .safetensors files have metadata; it is empty for files that nuat did not write.

    Raises:
        InputError: the file does not exist, is damaged, has another format version, or has
            metadata that nuat does not write.
    """
    path = _existing(path)
    if path.suffix != ".safetensors":
        return {}
    metadata = _all_metadata(path)
    metadata.pop("format", None)
    metadata.pop(KEY, None)
    version = metadata.pop("format_version", None)
    if version is None:
        return {}
    check_format_version(
        int(version) if version.isdecimal() and len(version) < 10 else version, path
    )
    parse_metadata(metadata, path)
    return metadata


def _all_metadata(path: Path) -> dict[str, str]:
    with _readable(path), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _check_checksum(weights: dict[str, Tensor], path: Path) -> None:
    """Raise InputError if nuat wrote the file and its contents have changed since."""
    metadata = _all_metadata(path)
    stored = metadata.pop(KEY, None)
    # other programs may have a checksum of their own, of another length
    if "format_version" in metadata or len(stored or "") == len(checksum(None)):
        check_checksum([weights, metadata], stored, path)


def _existing(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    return path


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of torch and safetensors about a file into an InputError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        # torch names the rejected class or function "GLOBAL" in its message; no type tells it apart
        if "global" not in str(error).lower():
            raise InputError(f"{path} cannot be read as weights: it is not a pickle") from None
        raise InputError(
            f"{path} holds more than weights and was not loaded: it is a pickle with code or "
            "objects. Save a state dict (torch.save(model.state_dict(), path)) or a .safetensors "
            "file"
        ) from error
    except InputError:
        raise
    except Exception as error:  # torch raises errors of any kind for a file that is damaged
        # some say no more than the number that they have stumbled on
        reason = str(error) if " " in str(error) else "it is not a file of weights"
        raise InputError(f"{path} cannot be read as weights: {reason}") from None


def _find_state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the contents of a file: the contents, or their only such entry.

    Training scripts often save {"state_dict": ..., "optimizer": ..., "epoch": ...}.
    """
    if not isinstance(found, dict):
        raise InputError(
            f"{path} holds a {type(found).__name__}, not a state dict of tensors by name"
        )
    if _is_state_dict(found):
        return found
    nested = [key for key, value in found.items() if isinstance(value, dict)]
    state_dicts = [key for key in nested if found[key] and _is_state_dict(found[key])]
    if len(state_dicts) == 1:
        state_dict: dict[str, Tensor] = found[state_dicts[0]]
        return state_dict
    kind = f"{len(state_dicts)} state dicts" if state_dicts else "a dict"
    entries = ", ".join(map(repr, (state_dicts or nested)[:5]))
    hint = f"; save one of its entries alone: {entries}" if nested else ""
    raise InputError(f"{path} holds {kind}, not one state dict of tensors by name{hint}")


def _is_state_dict(value: dict[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
