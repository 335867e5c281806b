"""Matching the classes of images with those of a model, by name."""

from __future__ import annotations

from collections.abc import Sequence

from nuat.data.base import ImageDataset
from nuat.data.image_folder import summarize
from nuat.data.names import is_numbered, match_labels
from nuat.errors import InputError

MAX_LISTED = 10


def match_classes(
    images: ImageDataset, classes: Sequence[str], owner: str = "the model", subset: bool = False
) -> tuple[ImageDataset, list[str]]:
    """Return the images with the labels that their classes have in `classes`, and notes.

    Labels stay as they are if the images have no class names. If one of the two sides numbers its
    classes, labels stay as they are too, and a note says so.

    Args:
        images: the images; `images.classes` are their class names, or None.
        classes: the names of the classes by label; empty if they are not known.
        owner: whose classes these are, for messages.
        subset: whether the images may lack some of the classes.

    Raises:
        InputError: the two sides have different classes.
    """
    given = images.classes
    if given is None or not classes or tuple(given) == tuple(classes):
        return images, []
    listed = (
        f"the classes of {owner} are {summarize(classes, MAX_LISTED)}, "
        f"those of the data {summarize(given, MAX_LISTED)}"
    )
    labels = match_labels(given, classes)
    is_number = is_numbered(given), is_numbered(classes)
    if len(given) == len(classes) and is_number[0] != is_number[1]:
        return images, [f"labels are matched by number, not by name: {listed}"]
    if len(given) != len(classes) and not (subset and labels):
        raise InputError(
            f"{owner} is for {len(classes)} classes, but the data have {len(given)}: {listed}; "
            "name the data that it was trained on, or data of the same classes"
        )
    if labels is None:
        raise InputError(f"{listed}: name data of the same classes, in any order")
    matched = images.with_classes(classes, labels)
    is_same = labels == list(range(len(given)))
    return matched, [] if is_same or subset else [f"labels are matched by name: {listed}"]
