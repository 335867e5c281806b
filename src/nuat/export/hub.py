"""Uploading models to the Hugging Face Hub and loading them from it; needs the `hub` extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nuat.checkpoints import LoadedModel, load_model
from nuat.checkpoints.weights_io import WEIGHTS_FILE
from nuat.errors import InputError
from nuat.export.folder import save_pretrained
from nuat.runtime.extras import import_extra


def push_to_hub(
    source: LoadedModel | Path | str, repo: str, *, license: str = "unknown", private: bool = True
) -> str:
    """Upload a model's weights and card; you must be logged in (`hf auth login`).

    Args:
        source: a run folder, a weights file, or a model that `nuat.load_model` returned.
        repo: the repository, `user/name`; it is created if it does not exist.
        license: the license of the weights, for the card, such as `mit`.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        InputError: the extra is not installed, or the Hub rejects the upload.
    """
    hub = import_extra("hub", "the Hugging Face Hub", "huggingface_hub")
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(source, Path(temporary) / "model", license=license)
        with _one_line_errors(f"cannot upload the model to {repo!r}"):
            api = hub.HfApi()
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message="Weights and model card"
            )
    return str(address)


def from_pretrained(
    source: Path | str,
    model: str | None = None,
    *,
    revision: str | None = None,
    device: torch.device | str | None = "cpu",
) -> LoadedModel:
    """Load a model from a repository of the Hub, or from a local folder.

    Only the weights file is downloaded, and no code of the repository is executed.

    Args:
        source: the repository, `user/name`, or a local folder or file.
        model: the architecture, for a model that is not part of nuat.
        revision: a branch, tag or commit of the repository.
        device: where to put the model; None chooses cuda if there is one.

    Raises:
        InputError: the extra is not installed, or there is no such model.
    """
    if Path(source).exists():
        return load_model(source, model, device=device)
    hub = import_extra("hub", "the Hugging Face Hub", "huggingface_hub")
    with _one_line_errors(
        f"there is no folder {str(source)!r}, and no model of this name can be downloaded"
    ):
        file = hub.hf_hub_download(str(source), WEIGHTS_FILE, revision=revision)
    return load_model(file, model, device=device)


@contextmanager
def _one_line_errors(message: str) -> Iterator[None]:
    """Turn any error of the Hub, of the connection or of the login into one line."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{message}: {reason or type(error).__name__}") from error
