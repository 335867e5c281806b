"""To the Hugging Face Hub and back, through the `hub` extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nuat.checkpoints import LoadedModel, load_model
from nuat.checkpoints.files import WEIGHTS
from nuat.errors import InputError
from nuat.export.extras import extra
from nuat.export.folder import save_pretrained


def push_to_hub(
    source: LoadedModel | Path | str, repo: str, *, license: str = "unknown", private: bool = True
) -> str:
    """Put a model's weights and card into the repository `user/name`, made if it is not there.

    You must be logged in (`hf auth login`). Returns the address. Raises InputError if the extra is
    missing or the Hub refuses.
    """
    hub = extra("hub", "huggingface_hub")
    with TemporaryDirectory() as place:
        folder = save_pretrained(source, Path(place) / "model", license=license)
        with _one_line(f"the model cannot be put into {repo!r}"):
            api = hub.HfApi()
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Weights and card")
    return str(address)


def from_pretrained(
    source: Path | str,
    model: str | None = None,
    *,
    revision: str | None = None,
    device: torch.device | str | None = "cpu",
) -> LoadedModel:
    """The network in a repository `user/name` of the Hub, or in a folder on this machine.

    Weights alone are read, and no code of the repository is run: a network of somebody's own class
    must be named with `model`. Raises InputError if the extra is missing, or there is no such
    model.
    """
    if Path(source).exists():
        return load_model(source, model, device=device)
    hub = extra("hub", "huggingface_hub")
    with _one_line(f"there is no folder {str(source)!r}, and no model of this name can be had"):
        file = hub.hf_hub_download(str(source), WEIGHTS, revision=revision)
    return load_model(file, model, device=device)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever stands between this machine and the Hub, as one line."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: {first or type(error).__name__}") from error
