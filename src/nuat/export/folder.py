"""Exporting a model as a folder with weights and model card, or as a plain state dict."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from nuat.checkpoints import LoadedModel, load_model, write_weights
from nuat.checkpoints.weights_io import WEIGHTS_FILE
from nuat.errors import InputError
from nuat.export.card import model_card, public_name
from nuat.nn.state_dict import plain_state_dict
from nuat.runtime.files import atomic_write


def save_pretrained(
    source: LoadedModel | Path | str, folder: Path | str, *, license: str = "unknown"
) -> Path:
    """Write model.safetensors and the model card, README.md, into a new or empty folder.

    `nuat.from_pretrained`, `nuat.load_model` and `nuat evaluate` read such a folder. The names of
    data sets are written without their paths.

    Args:
        source: a run folder, a weights file, or a model that `nuat.load_model` returned.
        folder: the folder to write.
        license: the license of the weights, for the card, such as `mit`.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not empty, or the model cannot be loaded.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder: choose another --out")
    loaded = source if isinstance(source, LoadedModel) else load_model(source)
    card = model_card(loaded, license)
    metadata = dict(loaded.metadata)
    if "data" in metadata:
        metadata["data"] = public_name(metadata["data"])
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "README.md", lambda file: file.write_text(card))
    write_weights(folder / WEIGHTS_FILE, plain_state_dict(loaded.model), metadata)
    return folder


def save_state_dict(source: LoadedModel | Path | str, file: Path | str) -> None:
    """Write a plain state dict, as `torch.save(model.state_dict(), file)` does.

    Other libraries such as RobustBench load this. The model takes images in [0, 1]; the mean and
    std of a normalization are part of the state dict.
    """
    loaded = source if isinstance(source, LoadedModel) else load_model(source)
    weights = {
        key: value.cpu().contiguous() for key, value in plain_state_dict(loaded.model).items()
    }
    content = io.BytesIO()  # torch's own writer hides the reason of an error, such as a full disk
    torch.save(weights, content)
    atomic_write(Path(file), lambda partial: partial.write_bytes(content.getbuffer()))
