"""Imports go down only. The floors are those of the design; every module has one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nuat"

ROOMS = {
    1: "errors registry notation values schedules noise threat losses nuclear_norm network "
    "batchnorm checks memory weights runs ledger progress versions distributed search importing "
    "intervals precision",
    2: "attacks models data",
    3: "methods loading guard",
    4: "cost threads graphs recipes descent train evaluate diagnose report export",
    5: "reproduce bench",
    6: "cli",
}
FLOORS = {name: floor for floor, names in ROOMS.items() for name in names.split()}
FLOORS[""] = 5.5  # the package itself, what `import nuat` gives: for cli alone
LEVEL_ALLOWED = {1, 4}
"""Floors whose rooms may import each other, as long as there is no circle."""

FORBIDDEN = {
    "attacks": ("nuat.methods",),
    "methods": (
        "nuat.training",
        "nuat.runtime.ranks",
        "torch.optim",
        "torch.distributed",
        "torch.nn.parallel",
    ),
    "evaluate": ("nuat.recipes", "nuat.training"),
}
FORBIDDEN_TEXT = {"methods": ("cuda", "device=")}
ONLY_IN = {"argparse": "cli", "typer": "cli", "click": "cli", "sys.argv": "cli"}


def sources(root: Path) -> dict[str, str]:
    """Dotted name -> text of every module under src/nuat."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = ("nuat", *path.relative_to(root).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__")] = path.read_text()
    return found


def room(module: str) -> str:
    """`nuat.attacks.gama` -> `attacks`; the package itself -> ``."""
    return [*module.split("."), ""][1]


def imported(module: str, modules: dict[str, str]) -> Iterator[str]:
    """Everything a module imports, anywhere in it; names of modules where a module is meant."""
    package = (module in {m.rpartition(".")[0] for m in modules}) or module == "nuat"
    for node in ast.walk(ast.parse(modules[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                inside = full.split(".")[0] == "nuat" and full not in modules
                yield base if inside else full


def dotted(text: str) -> set[str]:
    """Every a.b.c that is written in the code."""
    return {ast.unparse(n) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way round in the graph, or nothing."""
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if found := walk(target, [*trail, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def violations(modules: dict[str, str]) -> list[str]:
    """What is wrong with the house, a line each."""
    found = [f"{module} is on no floor" for module in modules if room(module) not in FLOORS]
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, text in modules.items():
        here, floor = room(module), FLOORS.get(room(module), 99)
        for name in imported(module, modules):
            if within(name, "nuat"):
                graph[module].add(name)
            there = room(name)
            if within(name, "nuat") and there != here:
                below = FLOORS.get(there, 99)
                if below > floor or (below == floor and floor not in LEVEL_ALLOWED):
                    found.append(f"{module} imports up: {name}")
        names = {*imported(module, modules), *dotted(text)}
        for name in sorted(names):
            if any(within(name, prefix) for prefix in FORBIDDEN.get(here, ())):
                found.append(f"{module} must not use {name}")
            if any(within(name, prefix) and here != only for prefix, only in ONLY_IN.items()):
                found.append(f"{module} parses arguments: {name}")
        for word in FORBIDDEN_TEXT.get(here, ()):
            if word in text:
                found.append(f"{module} mentions {word}")
    if way := circle(graph):
        found.append("circle: " + " -> ".join(way))
    return found


def test_the_house_stands() -> None:
    modules = sources(SOURCE)
    assert {"nuat", "nuat.threat_models", "nuat.attacks", "nuat.attacks.ascent"} <= set(modules)
    assert violations(modules) == []


@pytest.mark.parametrize("package", ["attacks", "methods", "models", "data", "recipes"])
def test_imports_are_seen(package: str) -> None:
    """Else nothing above would mean anything."""
    modules = sources(SOURCE)
    seen = set(imported(f"nuat.{package}", modules))
    assert any(room(name) == package for name in seen)


def house(**rooms: str) -> dict[str, str]:
    return {"nuat": "", **{f"nuat.{name.replace('__', '.')}": text for name, text in rooms.items()}}


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (house(threat="from nuat.rng import Noise", noise=""), []),
        (house(attacks="from nuat.attacks import gama", attacks__gama="import torch"), []),
        (house(train="from nuat.recipes import Recipe", recipes=""), []),
        (house(cellar=""), ["nuat.cellar is on no floor"]),
        (
            house(threat="import nuat.attacks", attacks=""),
            ["nuat.threat_models imports up: nuat.attacks"],
        ),
        (house(threat="from nuat import attacks", attacks=""), ["imports up: nuat.attacks"]),
        (house(threat="from . import attacks", attacks=""), ["imports up: nuat.attacks"]),
        (house(threat="from .attacks import PGD", attacks=""), ["imports up: nuat.attacks"]),
        (house(threat="def f():\n    import nuat.cli", cli=""), ["imports up: nuat.cli"]),
        (house(threat="from nuat import PGD"), ["nuat.threat_models imports up: nuat"]),
        (house(models="import nuat.data", data=""), ["nuat.models imports up: nuat.data"]),
        (
            house(attacks__gama="from ..methods import AT", attacks="", methods=""),
            ["imports up: nuat.methods", "must not use nuat.methods"],
        ),
        (
            house(evaluate="from nuat.recipes import recipe", recipes=""),
            ["nuat.evaluation must not use nuat.recipes"],
        ),
        (house(evaluate="from nuat import train", train=""), ["must not use nuat.training"]),
        (house(methods="import torch\ntorch.optim.SGD"), ["must not use torch.optim"]),
        (house(methods="from torch import optim"), ["must not use torch.optim"]),
        (house(methods="import torch.distributed as d"), ["must not use torch.distributed"]),
        (house(methods="x.to('cuda')"), ["nuat.methods mentions cuda"]),
        (house(methods="torch.zeros(1, device=d)"), ["nuat.methods mentions device="]),
        (house(train="import argparse"), ["nuat.training parses arguments: argparse"]),
        (house(train="import sys\nsys.argv"), ["nuat.training parses arguments: sys.argv"]),
        (house(cli="import nuat, typer"), []),
        ({"nuat": "from nuat.cli import main", "nuat.cli": ""}, ["nuat imports up: nuat.cli"]),
        (
            house(noise="import nuat.threat_models", threat="import nuat.rng"),
            ["circle: nuat.rng -> nuat.threat_models -> nuat.rng"],
        ),
    ],
    ids=lambda case: case[-1] if isinstance(case, list) and case else "",
)
def test_what_would_be_found(modules: dict[str, str], found: list[str]) -> None:
    lines = violations(modules)
    assert bool(lines) == bool(found)
    for expected in found:
        assert any(expected in line for line in lines), lines
