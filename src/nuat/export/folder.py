"""A model as a folder to give away: weights and card."""

from __future__ import annotations

from pathlib import Path

import torch

from nuat.checkpoints import LoadedModel, load_model
from nuat.checkpoints.files import WEIGHTS
from nuat.checkpoints.weights_io import write_weights
from nuat.errors import InputError
from nuat.export.card import card, public
from nuat.runtime.files import atomic_write


def save_pretrained(
    source: LoadedModel | Path | str, folder: Path | str, *, license: str = "unknown"
) -> Path:
    """Write model.safetensors and its card, README.md, into a new or empty folder.

    `nuat.from_pretrained`, `nuat.trained` and `nuat evaluate` open such a folder. Returns it.
    Raises InputError if something is there already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder: choose another --out")
    network = source if isinstance(source, LoadedModel) else load_model(source)
    text = card(network, license)
    about = dict(network.about)
    if "data" in about:
        about["data"] = public(about["data"])
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "README.md", lambda file: file.write_text(text))
    write_weights(folder / WEIGHTS, network.model.state_dict(), about)
    return folder


def save_state_dict(source: LoadedModel | Path | str, file: Path | str) -> None:
    """Write a plain state dict, as `torch.save(f.state_dict(), file)` does.

    That is what loaders outside of nuat read, RobustBench's among them: names and tensors alone,
    for images in [0, 1], with the mean and std of a normalization in it.
    """
    network = source if isinstance(source, LoadedModel) else load_model(source)
    weights = {key: value.cpu().contiguous() for key, value in network.model.state_dict().items()}
    atomic_write(Path(file), lambda partial: torch.save(weights, partial))
