"""Recipes: a value for each named line of the published tables; `get_recipe("nuat", "digits")`."""

# importing a table registers its recipes
from nuat.recipes import (  # noqa: F401
    cifar10,
    cifar10_wrn,
    digits,
    imagenet100,
    mnist,
    more_photographs,
)
from nuat.recipes.recipe import Recipe
from nuat.recipes.registry import get_recipe, list_recipes, register_recipe

__all__ = ["Recipe", "get_recipe", "list_recipes", "register_recipe"]
