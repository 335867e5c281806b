"""Registries."""

import pytest

from nuat import (
    InputError,
    get_recipe,
    list_recipes,
    register_recipe,
)
from nuat.attacks import attack_registry
from nuat.config.registry import Registry
from nuat.data import dataset_registry
from nuat.models import model_registry
from nuat.threat_models import norms


@pytest.fixture
def fruit() -> Registry[int]:
    table: Registry[int] = Registry("fruit")
    table.add("apple", 1)
    table.add("pear", 2)
    return table


def test_entries_keep_their_order(fruit: Registry[int]) -> None:
    assert (fruit["apple"], fruit["pear"]) == (1, 2)
    assert list(fruit) == ["apple", "pear"] and len(fruit) == 2
    assert dict(fruit.items()) == {"apple": 1, "pear": 2}
    assert "apple" in fruit and "aple" not in fruit


def test_add_and_register_return_the_entry(fruit: Registry) -> None:
    assert fruit.add("fig", 3) == 3

    @fruit.register("plum")
    def plum() -> int:
        return 4

    assert fruit["plum"] is plum and plum() == 4


def test_an_entry_cannot_be_replaced(fruit: Registry[int]) -> None:
    with pytest.raises(InputError, match="already a fruit called 'apple'"):
        fruit.add("apple", 9)
    with pytest.raises(InputError, match="already a fruit called 'pear'"):
        fruit.register("pear")(9)
    with pytest.raises(InputError, match="already a fruit called 'pear'"):
        fruit["pear"] = 9
    assert (fruit["apple"], fruit["pear"]) == (1, 2)


def test_an_unknown_name_suggests_the_nearest(fruit: Registry[int]) -> None:
    with pytest.raises(InputError, match=r"unknown fruit 'aple'; did you mean 'apple'\?"):
        fruit["aple"]
    with pytest.raises(InputError, match=r"unknown fruit 'xyz' \(there are: apple, pear\)"):
        fruit["xyz"]


def test_get_gives_the_default_as_in_every_mapping(fruit: Registry[int]) -> None:
    assert fruit.get("apple", 9) == 1
    assert fruit.get("aple") is None
    assert fruit.get("aple", 9) == 9


@pytest.mark.parametrize(
    ("table", "kind", "names"),
    [
        (model_registry, "model", {"small-cnn"}),
        (dataset_registry, "data set", {"digits"}),
        (attack_registry, "attack", {"fgsm", "pgd", "targeted-pgd", "gama"}),
        (norms, "norm", {"linf", "l2"}),
    ],
)
def test_the_registries_of_nuat(table: Registry, kind: str, names: set[str]) -> None:
    assert table.kind == kind
    assert names <= set(table)


def test_a_recipe_is_registered_once_for_a_data_set() -> None:
    row = list_recipes()[0]
    before = list_recipes()
    with pytest.raises(InputError, match=f"already a recipe '{row.name}' for '{row.data}'"):
        register_recipe(row)
    assert list_recipes() == before
    assert get_recipe(row.name, row.data) is row


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("nuat-w", "digits", r"unknown recipe 'nuat-w'; did you mean 'nuat-wa'\?"),
        ("nuat-wa", "dogs", r"unknown data set for 'nuat-wa' 'dogs'.*there are: .*digits"),
    ],
)
def test_an_unknown_recipe(name: str, data: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_recipe(name, data)
