"""Frozen values: as JSON, compared and changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nuat import (
    AT,
    GAMA,
    L2,
    PGD,
    Bernoulli,
    Constant,
    Gaussian,
    InputError,
    LinearRamp,
    Linf,
    Method,
    NuAT,
    NuAT2,
    Piecewise,
    Standard,
    StepDecay,
    frobenius,
    list_recipes,
)
from nuat.config.instances import replace_instances
from nuat.config.overrides import set_field
from nuat.config.serialization import diff, to_dict
from nuat.recipes.recipe import CONFIG_NAMES
from nuat.schedules import Schedule
from nuat.threat_models import Ball

ONE, NEAR = Constant(1.0), Linf(0.1)


@dataclass(frozen=True)
class Leaf:
    eps: float = 0.5
    count: int = 3
    name: str = "leaf"
    flag: bool = True
    lam: Schedule = ONE
    distance: Callable[..., Any] = max
    share: float | None = None


@dataclass(frozen=True)
class Tree:
    leaf: Leaf = Leaf()
    ball: Ball = NEAR
    parts: tuple[Any, ...] = ()


# ---- to_dict, diff


def test_to_dict() -> None:
    as_dict = to_dict(Tree(Leaf(lam=LinearRamp(4, 9)), parts=(1, None, {"a": (L2(0.5),)}, len)))
    assert as_dict == {
        "is": "Tree",
        "leaf": {
            "is": "Leaf",
            "eps": 0.5,
            "count": 3,
            "name": "leaf",
            "flag": True,
            "lam": {"is": "LinearRamp", "to": 4, "epochs": 9},
            "distance": "max",
            "share": None,
        },
        "ball": {"is": "Linf", "eps": 0.1},
        "parts": [1, None, {"a": [{"is": "L2", "eps": 0.5}]}, "len"],
    }


@pytest.mark.parametrize("row", list_recipes(), ids=lambda row: row.name)
def test_recipes_survive_json(row: Any) -> None:
    as_dict = to_dict(row)
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert diff(as_dict, json.loads(json.dumps(as_dict))) == []


@pytest.mark.parametrize(
    ("here", "there", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 here, 2 there"]),
        ({"a": {"b": 4.5}}, {"a": {"b": 4.0}}, ["a.b: 4.5 here, 4.0 there"]),
        ({"a": 1}, {}, ["a: 1 here, nothing there"]),
        ({}, {"a": 1}, ["a: nothing here, 1 there"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] here, [2, 1] there"]),
        ({"a": 1, "b": 2}, {"b": 3, "a": 4}, ["a: 1 here, 4 there", "b: 2 here, 3 there"]),
        ({"a": {"b": 1}}, {"a": 2}, ["a: {'b': 1} here, 2 there"]),
    ],
)
def test_diff(here: dict, there: dict, lines: list[str]) -> None:
    assert diff(here, there) == lines


def test_diff_of_methods_name_the_field() -> None:
    here, there = to_dict(NuAT(lam=LinearRamp(4.5, 90))), to_dict(NuAT(lam=LinearRamp(4.0, 90)))
    assert diff(here, there) == ["lam.to: 4.5 here, 4.0 there"]


# ---- replace_instances


def balls_in(value: Any) -> set[str]:
    text = json.dumps(to_dict(value))
    return {word for word in ('"Linf"', '"L2"') if word in text}


@pytest.mark.parametrize(
    "value",
    [
        Linf(0.3),
        Tree(),
        PGD(Linf(0.3)),
        AT(PGD(Linf(0.3))),
        NuAT(Linf(0.3)),
        replace(list_recipes()[1], method=AT(GAMA(Linf(0.3)))),
        Tree(parts=(PGD(Linf(0.1)), GAMA(Linf(0.1)))),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_replace_instances_reaches_every_ball(value: Any) -> None:
    replaced = replace_instances(value, Ball, L2(0.7))
    assert type(replaced) is (L2 if isinstance(value, Linf) else type(value))
    assert balls_in(value) == {'"Linf"'}
    assert balls_in(replaced) == {'"L2"'}


def test_replace_instances_leaves_the_rest_and_the_original() -> None:
    tree = Tree(Leaf(eps=0.25), Linf(0.1))
    assert replace_instances(tree, Ball, L2(1.0)) == Tree(Leaf(eps=0.25), L2(1.0))
    assert tree == Tree(Leaf(eps=0.25), Linf(0.1))
    assert replace_instances(Leaf(), Ball, L2(1.0)) == Leaf()


# ---- set_field


@pytest.mark.parametrize(
    ("value", "path", "text", "expected"),
    [
        (Leaf(), "eps", "8/255", Leaf(eps=8 / 255)),
        (Leaf(), "eps", "2", Leaf(eps=2.0)),
        (Leaf(), "count", "7", Leaf(count=7)),
        (Leaf(), "name", "any text, (such as this", Leaf(name="any text, (such as this")),
        (Leaf(), "flag", "False", Leaf(flag=False)),
        (NuAT(), "reference", "eval", NuAT(reference="eval")),
        (NuAT(), "reference", "'eval'", NuAT(reference="eval")),
        (Leaf(), "lam", "3", Leaf(lam=Constant(3.0))),
        (Leaf(), "lam", "LinearRamp(4, 9)", Leaf(lam=LinearRamp(4, 9))),
        (Leaf(), "lam.value", "0.5", Leaf(lam=Constant(0.5))),
        (Leaf(), "distance", "frobenius", Leaf(distance=frobenius)),
        (Leaf(), "share", "0.98", Leaf(share=0.98)),
        (Leaf(share=0.98), "share", "None", Leaf()),
        (Tree(), "leaf.lam.value", "0.5", Tree(Leaf(lam=Constant(0.5)))),
        (Tree(), "ball", "L2(0.5)", Tree(ball=L2(0.5))),
        (Tree(), "ball.eps", "0.2", Tree(ball=Linf(0.2))),
        (NuAT(), "start", "Gaussian(0.01)", NuAT(start=Gaussian(0.01))),
        (NuAT(), "start.fraction", "1", NuAT(start=Bernoulli(1.0))),
        (LinearRamp(4, 90), "to", "4.5", LinearRamp(4.5, 90)),
        (LinearRamp(4.0, 90), "epochs", "12.5", LinearRamp(4.0, 12.5)),
        (Linf(1), "eps", "0.5", Linf(0.5)),
        (AT(), "inner", "GAMA()", AT(GAMA())),
        (AT(PGD()), "inner.steps", "3", AT(PGD(steps=3))),
        (list_recipes()[1], "method", "NuAT2()", replace(list_recipes()[1], method=NuAT2())),
        (list_recipes()[0], "method", "AT()", replace(list_recipes()[0], method=AT())),
    ],
    ids=lambda case: str(case)[:25],
)
def test_set_field(value: Any, path: str, text: str, expected: Any) -> None:
    changed = set_field(value, path, text, CONFIG_NAMES)
    assert changed == expected
    assert to_dict(changed) == to_dict(expected)


def test_set_field_leaves_the_original() -> None:
    leaf = Leaf()
    set_field(leaf, "eps", "0.25")
    assert leaf == Leaf()


@pytest.mark.parametrize(
    ("value", "path", "text", "message"),
    [
        (Leaf(), "esp", "0.1", r"unknown field of Leaf 'esp'; did you mean 'eps'\?"),
        (Tree(), "leaf.coutn", "1", r"unknown field of Leaf 'coutn'; did you mean 'count'\?"),
        (Leaf(), "eps.deeper", "1", r"cannot set eps.deeper: 0.5 has no fields"),
        (Leaf(), "count", "1.5", r"count is 3 and takes a whole number, not 1.5"),
        (Leaf(), "count", "True", r"count is 3"),
        (Leaf(), "eps", "True", r"eps is 0.5"),
        (Leaf(), "eps", "'0.1'", r"eps is 0.5"),
        (Leaf(), "flag", "1", r"flag is True and takes True or False, not 1"),
        (Leaf(), "lam", "Linf(0.1)", r"lam is Constant\(value=1.0\) and takes a Schedule"),
        (Leaf(), "lam", "True", r"lam is Constant"),
        (Leaf(), "distance", "3", r"distance is max and takes a function"),
        (Leaf(), "distance", "forbenius", r"did you mean 'frobenius'\?"),
        (Tree(), "ball", "0.1", r"ball is Linf\(0.1\) and takes a Ball .*, not 0.1"),
        (Tree(), "ball.eps", "8", r"did you mean 8/255\?"),
        (NuAT(), "start", "Linf(0.1)", r"takes a Start"),
        (Piecewise(((0, 1.0),)), "points", "5", r"points"),
        (StepDecay(1.0, (5,)), "at", "60", r"at is \(5,\)"),
        (Leaf(share=0.98), "share", "'much'", r"share is 0.98"),
        (list_recipes()[1], "method", "Linf(0.1)", r"takes a Method"),
    ],
    ids=lambda case: str(case)[:25],
)
def test_set_field_refuses(value: Any, path: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        set_field(value, path, text, CONFIG_NAMES)


def test_an_outside_method_can_be_replaced_by_one_of_ours() -> None:
    @dataclass(frozen=True)
    class Mine(Method):
        strength: float = 1.0

    row = replace(list_recipes()[0], method=Mine())
    assert set_field(row, "method", "Standard()", CONFIG_NAMES).method == Standard()
