"""The tables of `nuat reproduce`: their rows, their attacks and the published figures.

The figures are those of "Towards Efficient and Effective Adversarial Training", NeurIPS 2021,
tables 1 to 3. Table 2 also has a row NuAT-WA-H of 25 + 2 epochs, for which there is no recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nuat.errors import unknown_name
from nuat.recipes.registry import list_recipes

Figures = tuple[str, Mapping[str, float]]
"""The published "AT steps (epochs)", "" if not printed, and accuracies in percent: "clean" and one
per attack."""

_Entry = tuple[str, str, str, Sequence[str], Mapping[str, tuple[str, *tuple[float, ...]]]]


@dataclass(frozen=True)
class Table:
    """A table to reproduce.

    Attributes:
        name: such as "mnist".
        data: the data set of its recipes.
        title: which published table it is; "" where nothing is published.
        attacks: the attacks of the published table.
        published: the published figures, by the name of the recipe.
        recipes: the names of all recipes that can be a row.
    """

    name: str
    data: str
    title: str = ""
    attacks: Sequence[str] = ()
    published: Mapping[str, Figures] = field(default_factory=dict)
    recipes: Sequence[str] = ()

    @property
    def rows(self) -> list[str]:
        """The rows of the published table, or all recipes where nothing is published."""
        return list(self.published or self.recipes)


def find_table(name: str) -> Table:
    """Return the published table of this name, or the one of all recipes of a data set.

    Raises:
        InputError: there is no such table.
    """
    tables = [_published_table(*table) for table in _TABLES]
    published = {table.data for table in tables}
    for data in dict.fromkeys(recipe.data for recipe in list_recipes()):
        if data not in published:
            tables.append(Table(data, data, recipes=_recipes(data)))
    by_name = {table.name: table for table in tables}
    if name not in by_name:
        raise unknown_name("table", name, by_name)
    return by_name[name]


def published_accuracies(data: str, recipe: str) -> dict[str, float]:
    """The published accuracies of a recipe in percent, by attack and "clean"; {} without any.

    `data` may have settings, such as "mnist(train=6000)".
    """
    tables = [_published_table(*table) for table in _TABLES]
    found: dict[str, float] = {}
    for table in tables:
        if table.data == data.partition("(")[0] and recipe in table.published:
            found |= table.published[recipe][1]
    return found


def _published_table(
    name: str,
    data: str,
    title: str,
    attacks: Sequence[str],
    rows: Mapping[str, tuple[str, *tuple[float, ...]]],
) -> Table:
    figures = {
        row: (steps, dict(zip(("clean", *attacks), accuracies, strict=True)))
        for row, (steps, *accuracies) in rows.items()
    }
    recipes = _recipes(data)
    if data == "cifar10":  # two tables share its recipes
        is_wide = name == "cifar10-wrn"
        recipes = [recipe for recipe in recipes if recipe.endswith("-wrn") == is_wide]
    return Table(name, data, title, attacks, figures, recipes)


def _recipes(data: str) -> list[str]:
    return [recipe.name for recipe in list_recipes() if recipe.data == data]


_TABLES: tuple[_Entry, ...] = (
    (
        "cifar10-resnet18",
        "cifar10",
        "NeurIPS 2021, table 1: CIFAR-10, ResNet-18",
        ("pgd-20", "pgd-500", "gama-100", "autoattack-v1"),
        {
            "normal": ("0", 92.30, 0.00, 0.00, 0.00, 0.00),
            "fgsm-at": ("1", 92.89, 0.00, 0.00, 0.00, 0.00),
            "rfgsm-at": ("1", 89.24, 35.02, 34.17, 33.87, 33.16),
            "atf": ("1", 71.77, 43.53, 43.52, 40.34, 40.22),
            "fbf": ("1", 82.83, 46.41, 46.03, 43.85, 43.12),
            "r-mgm": ("1", 82.29, 46.23, 45.79, 44.06, 43.72),
            "gat": ("1", 80.49, 53.13, 53.08, 47.76, 47.30),
            "gat-wa": ("1", 79.47, 54.40, 54.37, 49.00, 48.28),
            "nuat": ("1", 81.01, 53.30, 52.97, 49.46, 49.24),
            "nuat-wa": ("1", 82.21, 54.14, 53.95, 50.97, 50.75),
            "pgd-at": ("10", 81.12, 53.08, 52.89, 49.08, 48.75),
            "trades": ("10", 81.47, 52.73, 52.61, 49.22, 49.06),
            "trades-wa": ("10", 80.19, 52.98, 52.88, 49.49, 49.39),
            "awp": ("11", 81.99, 55.60, 55.52, 51.65, 51.45),
        },
    ),
    (
        "cifar10-wrn",
        "cifar10",
        "NeurIPS 2021, table 2: CIFAR-10, WideResNet-34-10",
        ("pgd-100", "gama-100", "autoattack"),
        {
            "fbf-wrn": ("1 (30)", 82.05, 45.57, 43.13, 43.10),
            "gat-wrn": ("1 (85)", 85.17, 55.12, 50.76, 50.12),
            "gat-wa-wrn": ("1 (85)", 84.61, 57.28, 52.19, 51.50),
            "nuat-wrn": ("1 (55)", 85.30, 53.82, 51.34, 50.81),
            "nuat-h-wrn": ("1 (50+5)", 84.58, 54.89, 51.93, 51.58),
            "nuat-wa-wrn": ("1 (50)", 85.29, 56.21, 53.73, 53.36),
            "nuat-wa-h-wrn": ("1 (60+6)", 84.93, 57.51, 54.28, 53.81),
            "nuat2-wrn": ("2 (55)", 84.76, 54.50, 51.99, 51.27),
            "nuat2-wa-wrn": ("2 (80)", 86.32, 57.74, 55.08, 54.76),
            "trades-wrn": ("10 (110)", 85.48, 56.35, 53.88, 53.80),
            "pgd-at-wrn": ("10 (200)", 86.07, 55.74, 52.70, 52.19),
            "awp-wrn": ("11 (200)", 85.36, 59.13, 56.35, 56.17),
        },
    ),
    (
        "imagenet100",
        "imagenet100",
        "NeurIPS 2021, table 3: ImageNet-100, ResNet-18",
        ("pgd-500", "gama-100", "autoattack-v1"),
        {
            "normal": ("", 81.44, 0.00, 0.00, 0.00),
            "rfgsm-at": ("", 78.46, 13.88, 13.38, 12.96),
            "fbf": ("", 57.32, 27.22, 21.78, 20.66),
            "r-mgm": ("", 64.84, 31.68, 27.46, 27.68),
            "gat": ("", 67.98, 37.46, 29.30, 28.92),
            "nuat": ("", 69.00, 37.60, 32.38, 31.96),
            "nuat-wa": ("", 68.40, 38.68, 33.22, 33.16),
            "trades": ("", 62.88, 37.24, 31.44, 31.66),
            "pgd-at": ("", 68.62, 36.56, 32.24, 32.98),
        },
    ),
    (
        "mnist",
        "mnist",
        "NeurIPS 2021, table 3: MNIST, a LeNet-like network",
        ("pgd-500", "gama-100", "autoattack-v1"),
        {
            "normal": ("", 99.20, 0.00, 0.00, 0.00),
            "rfgsm-at": ("", 99.37, 85.32, 83.64, 82.28),
            "fbf": ("", 99.30, 91.37, 87.27, 79.02),
            "r-mgm": ("", 99.04, 90.56, 88.13, 86.21),
            "gat": ("", 99.37, 94.44, 92.96, 90.62),
            "nuat": ("", 99.37, 96.24, 94.65, 93.11),
            "nuat-wa": ("", 99.36, 96.30, 94.70, 93.10),
            "trades": ("", 99.32, 93.40, 92.74, 92.19),
            "pgd-at": ("", 99.27, 93.98, 92.80, 91.81),
        },
    ),
)
