"""Reading and writing weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from nuat.errors import InputError
from nuat.runtime.files import atomic_write


def write_weights(target: Path, weights: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a .safetensors file, whole or not at all, with text beside the weights."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    atomic_write(target, lambda file: file.write_bytes(save(tensors, metadata=dict(about))))


def read_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a .safetensors or state-dict file, and the text beside them.

    Code in a pickle is never run. Raises InputError for a file that is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
            return load_file(path), about
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        why = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as weights: {why}") from None
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():
            raise InputError(f"{path} cannot be read as weights: it is no pickle") from None
        raise InputError(
            f"{path} holds more than weights and was refused: it is a pickle with code or objects. "
            "Save a state dict (torch.save(f.state_dict(), path)) or a .safetensors file"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        inner = (
            [key for key, value in weights.items() if isinstance(value, dict)]
            if isinstance(weights, dict)
            else []
        )
        hint = f"; save one of its parts alone: {', '.join(map(repr, inner[:5]))}" if inner else ""
        raise InputError(
            f"{path} holds a {type(weights).__name__}, not a state dict of tensors{hint}"
        )
    return weights, {}
