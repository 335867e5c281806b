"""Data sets by name: `load_dataset("digits")` returns Splits(train, val, test, classes)."""

from nuat.data.adapters import as_dataset, as_splits
from nuat.data.augment import Augment
from nuat.data.base import ImageDataset
from nuat.data.image_files import ImageFileDataset
from nuat.data.paths import set_data_dir
from nuat.data.registry import (
    check_recorded_dataset,
    dataset_registry,
    dataset_slug,
    is_dataset_name,
    is_path_or_function,
    list_datasets,
    load_dataset,
    register_dataset,
    trust_dataset,
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
    "check_recorded_dataset",
    "class_balanced",
    "dataset_registry",
    "dataset_slug",
    "is_dataset_name",
    "is_path_or_function",
    "list_datasets",
    "load_dataset",
    "register_dataset",
    "set_data_dir",
    "trust_dataset",
    "with_bad_images",
]
