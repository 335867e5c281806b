"""What methods and attacks cost, counted on a small network whose first layer costs little."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

import nuat
from nuat.methods.cost import forward_equivalents
from nuat.runtime.flops import count_flops

CLASSES = 10
LONG = 20
"""More steps than these are extrapolated."""


def network(width: int = 32) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
    for _ in range(5):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 64, CLASSES))


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def passes(number: float) -> str:
    return f"{round(number):,} forward passes"


def method_cost(kind: type) -> str:
    """The counted cost of the recipes of a method, half-way through their training."""
    recipes = [r for r in nuat.list_recipes() if type(r.method) is kind]
    home = next((r.data for r in recipes if r.data == "digits"), recipes[0].data if recipes else "")
    costs: dict[str, list[str]] = {}
    for recipe in (r for r in recipes if r.data == home):
        model, x = network(), images(8)
        y = torch.arange(8) % CLASSES
        cost = forward_equivalents(recipe.method, model, x, y, epoch=recipe.epochs // 2)
        costs.setdefault(passes(cost), []).append(f"``{recipe.name}``")
    return "; ".join(f"{cost} ({', '.join(names)})" for cost, names in costs.items()) + "."


def attack_cost(kind: type) -> str:
    """The counted cost of an attack with its defaults; a backward pass to the image is one more."""
    attack = kind(nuat.Linf(1e-6))  # nothing is fooled within so small a ball
    if isinstance(attack, nuat.Ensemble):
        counted = {name: count(part) for name, part in attack.parts}
        parts = ", ".join(f"{name} {round(number):,}" for name, number in counted.items())
        return f"{passes(sum(counted.values()))} ({parts})."
    return f"{passes(count(attack))}."


@cache
def count(attack: nuat.Attack) -> float:
    """Restarts cost the same, and so do steps: one restart of two short attacks is counted."""
    steps = getattr(attack, "steps", 1)
    if steps <= LONG:
        return attack.restarts * count_run(replace(attack, restarts=1))
    short, longer = (count_run(replace(attack, restarts=1, steps=n)) for n in (LONG // 2, LONG))
    return attack.restarts * (longer + (longer - short) / (LONG - LONG // 2) * (steps - LONG))


def count_run(attack: nuat.Attack) -> float:
    model, x = network(width=16), images(8)
    y = model(x).argmax(1)
    return count_flops(lambda: attack(model, x, y)) / count_flops(lambda: model(x))
