"""Data sets by name: `load_dataset("digits")` returns Splits(train, val, test, classes)."""

from nuat.data.adapters import as_dataset, as_splits
from nuat.data.augment import Augment
from nuat.data.base import ImageDataset
from nuat.data.image_files import ImageFileDataset
from nuat.data.paths import set_data_dir
from nuat.data.registry import (
    dataset_registry,
    dataset_slug,
    is_dataset_name,
    list_datasets,
    load_dataset,
    register_dataset,
    with_bad_images,
)
from nuat.data.sampling import class_balanced
from nuat.data.splits import InMemoryDataset, Splits

__all__ = [
    "Augment",
    "ImageDataset",
    "ImageFileDataset",
    "InMemoryDataset",
    "Splits",
    "as_dataset",
    "as_splits",
    "class_balanced",
    "dataset_registry",
    "dataset_slug",
    "is_dataset_name",
    "list_datasets",
    "load_dataset",
    "register_dataset",
    "set_data_dir",
    "with_bad_images",
]
