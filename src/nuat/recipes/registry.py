"""The registry of recipes. Add your own with `register_recipe`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from nuat.config.parsing import parse_call
from nuat.data import Augment, is_dataset_name
from nuat.errors import InputError, unknown_name
from nuat.recipes.recipe import Recipe

_table: dict[tuple[str, str], Recipe] = {}

LARGE_IMAGE = 128
"""Minimum side length, in pixels, at which image files get the ImageNet-100 recipe."""

SMALL_IMAGE_AUGMENT = Augment(flip=True, scale=(0.25, 1.0))
"""Augmentation of image files below LARGE_IMAGE: larger crops than ImageNet's. Not published."""


def register_recipe(recipe: Recipe) -> Recipe:
    """Register a recipe under its name and data set, and return it.

    Raises:
        InputError: the data set has a recipe of this name already.

    >>> from dataclasses import replace
    >>> short = nuat.get_recipe("nuat-wa", "digits").with_epochs(5)
    >>> nuat.register_recipe(replace(short, name="nuat-wa-short")).epochs
    5
    """
    key = recipe.name, recipe.data
    if key in _table:
        raise InputError(f"there is already a recipe {recipe.name!r} for {recipe.data!r}")
    _table[key] = recipe
    return recipe


def list_recipes() -> list[Recipe]:
    """All recipes, in the order of registration.

    >>> [recipe.name for recipe in nuat.list_recipes() if recipe.data == "digits"][:3]
    ['normal', 'fgsm-at', 'rfgsm-at']
    """
    return list(_table.values())


def get_recipe(name: str, data: str, in_memory: bool = False) -> Recipe:
    """The recipe of this name for this data set; settings of the data set do not matter.

    A data set for which nothing is registered, such as `folder:PATH`, gets the recipe for CIFAR-10,
    or for ImageNet-100 if its images are large files, and a warning that names it.

    Args:
        name: name of the recipe, such as "nuat-wa".
        data: name of the data set, such as "digits" or "folder:photos(size=64)".
        in_memory: the data were passed from Python, so `data` need not be a registered name.

    Raises:
        InputError: there is no such recipe or data set.

    >>> recipe = nuat.get_recipe("nuat-wa", "digits")
    >>> recipe.epochs, recipe.ball, type(recipe.method).__name__
    (40, Linf(0.15), 'NuAT')
    """
    data_name, _ = parse_call(data)
    if (name, data_name) in _table:
        return _table[name, data_name]
    has_recipes = any(data_name == registered for _, registered in _table)
    if not has_recipes and (in_memory or is_dataset_name(data)):
        fallback = _fallback_recipe(name, data)
        if fallback is not None:
            return fallback
    names = list(dict.fromkeys(registered for registered, _ in _table))
    if name not in names:
        raise unknown_name("recipe", name, names)
    if Path(data_name).exists():
        kind = "npz" if data_name.endswith(".npz") else "folder"
        raise InputError(
            f"{data_name!r} is not the name of a data set; for files of your own, "
            f"{kind}:{data_name}"
        )
    data_sets = [registered for other, registered in _table if other == name]
    raise unknown_name(f"data set for {name!r}", data_name, data_sets)


def _fallback_recipe(name: str, data: str) -> Recipe | None:
    """The recipe of another data set for `data`; None if that has no recipe of this name."""
    data_name, settings = parse_call(data)
    is_folder = data_name.startswith("folder:")
    is_large = is_folder and settings.get("size", 224) >= LARGE_IMAGE
    recipe = _table.get((name, "imagenet100" if is_large else "cifar10"))
    if recipe is None:
        return None
    warnings.warn(
        f"there is no recipe {name!r} for {data_name}; using the one for {recipe.data} (model "
        f"{recipe.model}, {recipe.epochs} epochs, {recipe.ball}): change these with --model, "
        "--epochs, --eps",
        stacklevel=3,
    )
    note = f"{recipe.note}; fallback from {recipe.data}".removeprefix("; ")
    augment = SMALL_IMAGE_AUGMENT if is_folder and not is_large else recipe.augment
    return replace(recipe, data=data, note=note, source="ours", augment=augment)
