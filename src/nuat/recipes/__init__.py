"""Recipes: the table of named rows. `recipe("nuat-wa", "digits")`."""

from nuat.recipes import cifar10, cifar10_wrn, digits, imagenet100, mnist  # noqa: F401  their rows
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import get_recipe, list_recipes, register_recipe

__all__ = ["Recipe", "get_recipe", "list_recipes", "register_recipe"]
