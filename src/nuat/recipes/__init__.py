"""Recipes: the table of named rows. `recipe("nuat-wa", "digits")`."""

from nuat.recipes import digits  # noqa: F401  its rows
from nuat.recipes.recipe import Recipe
from nuat.recipes.table import recipe, recipes, register

__all__ = ["Recipe", "recipe", "recipes", "register"]
