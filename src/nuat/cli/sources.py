"""The model that a command is given, and the data that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nuat.cli.terminal import print_line
from nuat.errors import InputError

if TYPE_CHECKING:
    from nuat.checkpoints import LoadedModel
    from nuat.data import Splits


def choose_data(source: Path, data: str | None) -> tuple[str, bool]:
    """The data set to attack, by default the training data, and whether it is the training data."""
    from nuat.checkpoints import read_metadata
    from nuat.data import check_recorded_dataset, is_dataset_name

    trained_on = read_metadata(source).get("data")
    if data is not None:
        return data, data == trained_on
    if trained_on is None:
        raise InputError(f"{source} does not name its training data: give --data")
    if not is_dataset_name(trained_on):
        raise InputError(
            f"{source} was trained on {trained_on!r}, which was passed from Python: give --data, "
            "or call nuat.evaluate in Python"
        )
    check_recorded_dataset(trained_on, source)
    return trained_on, True


def load_splits(data: str, bad_images: str | None) -> Splits:
    """The data set, after its notes are printed."""
    from nuat.data import load_dataset, with_bad_images

    splits = load_dataset(with_bad_images(data, bad_images))
    for note in splits.notes:
        print_line(note)
    return splits


def load_source(source: Path, model: str | None, splits: Splits, device: str | None) -> LoadedModel:
    """The model for these data, on the GPU of this rank or on `device`."""
    from nuat.checkpoints import load_model, read_metadata
    from nuat.checkpoints.fields import parse_metadata
    from nuat.data.classes import match_classes
    from nuat.models import normalization_notes
    from nuat.runtime.device import get_device
    from nuat.runtime.ranks import rank

    recorded = parse_metadata(read_metadata(source), source)
    match_classes(splits.test, recorded.classes or ())  # an error before the model is built
    loaded = load_model(
        source,
        model,
        classes=len(splits.classes),
        channels=splits.train.channels,
        device=get_device(device),
    )
    for note in normalization_notes(loaded.model) if rank() == 0 else ():
        print_line(note)
    return loaded
