"""Recipes: the table of named rows. `recipe("nuat-wa", "digits")`."""

from nuat.recipes import cifar10, digits, imagenet100, mnist, wide  # noqa: F401  their rows
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import recipe, recipes, register

__all__ = ["Recipe", "recipe", "recipes", "register"]
