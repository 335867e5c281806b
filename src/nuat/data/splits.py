"""Images in memory, and the three splits of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from nuat.data.augment import Augment
from nuat.data.base import ALL, ImageDataset, shuffled_indices, to_float
from nuat.data.conversion import to_labels, to_tensor
from nuat.data.sampling import complement, first_of_each_class, stratified_holdout
from nuat.data.validation import check_byte_range, check_images, check_labels
from nuat.errors import InputError
from nuat.runtime.device import copy_to

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class InMemoryDataset(ImageDataset):
    """Images in memory.

    Attributes:
        x: images [N, C, H, W], uint8 in 0..255 or float in [0, 1].
        y: labels [N], whole numbers, which become int64.
        classes: names of the classes by label, or None if they have no names.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", to_tensor(self.x))
        object.__setattr__(self, "y", to_labels(self.y))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def check(self, classes: int | None = None) -> None:
        """Check the images and, if `classes` is given, the labels."""
        check_images(self.x)
        check_byte_range(self.x)
        check_labels(self.y, len(self.x), classes)

    def to(self, device: torch.device | str) -> InMemoryDataset:
        """Return the same images on a device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, C, H, W], float32 in [0, 1], and labels [B] at these indices [B]."""
        indices = copy_to(self.y.device, indices)
        return to_float(self.x[indices]), self.y[indices]

    def content_hash(self) -> str:
        """Return a hash of all images and labels."""
        return self._content_hash(max_images=len(self))

    def subset(self, indices: Tensor) -> InMemoryDataset:
        """Return the images at these indices [M]."""
        indices = indices.to(self.y.device)
        return replace(self, x=self.x[indices], y=self.y[indices])

    def shuffled_inputs(
        self,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        start: int = 0,
        share: slice = ALL,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the index and the three draws of `Augment.draw` of each image, [4, B], per batch.

        Those of the whole epoch are drawn at once, and copied to the device together.
        """
        augment = augment or Augment()
        self.check_augment(augment)
        rows = []
        for batch, indices in enumerate(shuffled_indices(len(self), batch_size, seed)):
            # One generator per batch, so that skipped batches do not shift the later ones.
            generator = torch.Generator().manual_seed(seed + 1 + batch)
            rows.append(torch.cat([indices[None], augment.draw(len(indices), generator)]))
        table = copy_to(self.y.device, torch.cat(rows[start:], dim=1)) if rows[start:] else None
        for batch_rows in () if table is None else table.split(batch_size, dim=1):
            yield (batch_rows[:, share],)

    def make_batch(
        self, inputs: Sequence[Tensor], augment: Augment | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return images and labels from the rows that `shuffled_inputs` yields."""
        indices, draws = inputs[0][0], inputs[0][1:]
        x = self.x.index_select(0, indices)
        return to_float(augment.apply(x, draws) if augment else x), self.y[indices]


@dataclass(frozen=True)
class Splits:
    """A data set, divided into training, validation and test images.

    Attributes:
        train: training images.
        val: validation images; the best epoch is selected on these, never on `test`.
        test: test images.
        classes: names of the classes, by label.
        name: the text that names the data set in `load_dataset`.
        notes: messages for the user about how the splits were made, one line each.
    """

    train: ImageDataset
    val: ImageDataset
    test: ImageDataset
    classes: tuple[str, ...]
    name: str = "data"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InputError(
                f"{self.name} has {len(self.classes)} class(es) {list(self.classes)}: "
                "a classifier needs two or more"
            )
        for split in SPLIT_NAMES:
            images = _named(self[split], self.classes)
            object.__setattr__(self, split, images)
            _check_split(images, f"{self.name}, {split} split", len(self.classes))
            if images.shape != self.train.shape:
                raise InputError(
                    f"{self.name}: images of the {split} split have shape {list(images.shape)}, "
                    f"images of the train split {list(self.train.shape)}"
                )

    def __getitem__(self, split: str) -> ImageDataset:
        if split not in SPLIT_NAMES:
            raise InputError(f"unknown split {split!r} (there are: train, val, test)")
        images: ImageDataset = getattr(self, split)
        return images

    def to(self, device: torch.device | str) -> Splits:
        """Return the same data on a device."""
        train, val, test = (self[split].to(device) for split in SPLIT_NAMES)
        return replace(self, train=train, val=val, test=test)


def _named(images: ImageDataset, classes: Sequence[str]) -> ImageDataset:
    """Return the images with these class names, if their kind can hold any."""
    has_field = is_dataclass(images) and any(each.name == "classes" for each in fields(images))
    if not has_field or images.classes == tuple(classes):
        return images
    # mypy does not narrow to dataclasses that are ImageDatasets
    named: ImageDataset = replace(images, classes=tuple(classes))  # type: ignore[type-var]
    return named


def hold_out_first(published: InMemoryDataset, per_class: int) -> tuple[InMemoryDataset, ...]:
    """Return the training images, and the first `per_class` images of each class for validation."""
    val = first_of_each_class(published.y, per_class)
    return published.subset(complement(published.y, val)), published.subset(val)


def limit_per_class(
    splits: Mapping[str, InMemoryDataset], counts: Mapping[str, int | None], classes: int
) -> dict[str, InMemoryDataset]:
    """Keep the first images of each class: `counts` of each split over all classes, or all if None.

    Raises:
        InputError: a count is not a multiple of `classes`, or a class has too few images.
    """
    return {
        name: images if (count := counts[name]) is None else _limit(name, images, count, classes)
        for name, images in splits.items()
    }


def _limit(name: str, images: InMemoryDataset, count: int, classes: int) -> InMemoryDataset:
    largest = classes * int(images.y.bincount(minlength=classes).min())
    if not 0 < count <= largest or count % classes:
        raise InputError(
            f"{name} is {count}, but must be a multiple of {classes} (classes) up to {largest}"
        )
    return images.subset(first_of_each_class(images.y, count // classes))


def fill_missing_splits(
    splits: Mapping[str, ImageDataset],
    data_name: str = "data",
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> tuple[dict[str, ImageDataset], tuple[str, ...]]:
    """Make val and test splits if they are missing.

    If there is a val split but no test split, val becomes the test split, as is usual for ImageNet.
    A split that is still missing is held out of train, the fraction `val` or `test` of each class,
    drawn with `seed`. `data_name` and `class_names` are those of error messages.

    Returns:
        All three splits, and a note for the user on each split that was made.

    Raises:
        InputError: the images or labels of a split are invalid, or a class is too small.
    """
    for name, images in splits.items():
        _check_split(images, f"{data_name}, {name} split")
    filled, notes = dict(splits), []
    if "test" not in filled and "val" in filled:
        filled["test"] = filled.pop("val")
        notes.append("there is no test split: the val images are used as the test split")
    for name, fraction in (("test", test), ("val", val)):
        if name not in filled:
            y = filled["train"].y
            indices = stratified_holdout(y, fraction, seed, class_names)
            filled[name] = filled["train"].subset(indices)
            filled["train"] = filled["train"].subset(complement(y, indices))
            notes.append(
                f"the {name} split is held out of train: {len(indices)} of {len(y)} images, "
                f"{fraction:.0%} of each class, drawn with seed {seed}"
            )
    return filled, tuple(notes)


def _check_split(images: ImageDataset, description: str, classes: int | None = None) -> None:
    try:
        if classes is None:
            images.check()
            classes = int(images.y.max()) + 1 if len(images) else 0
        images.check(classes)
    except InputError as error:
        raise InputError(f"{description}: {error}") from None
