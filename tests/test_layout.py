"""The layout of the package: no hidden module, a light import, every public name reachable."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nuat
from nuat import attacks, methods
from nuat.recipes import list_recipes

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(nuat.__path__, "nuat.")
    if not module.name.endswith("__main__")
)
SOURCE = Path(nuat.__file__).parent


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_hidden_by_another_object_of_its_name(name: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    parent, _, child = name.rpartition(".")
    found = getattr(importlib.import_module(parent), child)
    assert isinstance(found, ModuleType) and found.__name__ == name


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after a statement."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(shown.stdout.split())


def test_importing_nuat_imports_no_torch() -> None:
    """A name of `nuat` is loaded at its first use."""
    assert not imported_by("import nuat") & {"torch", "numpy", "matplotlib", "jinja2", "rich"}


@pytest.mark.parametrize("room", ["methods", "attacks", "evaluation", "training", "recipes"])
def test_the_science_imports_nothing_that_only_shows_it(room: str) -> None:
    shown = imported_by(f"import nuat.{room}")
    assert "torch" in shown
    assert not shown & {"matplotlib", "jinja2", "typer"}


def test_methods_import_no_rich() -> None:
    assert "rich" not in imported_by("from nuat.methods import NuAT")


def test_every_public_name_is_there_and_listed_once() -> None:
    text = (SOURCE / "__init__.pyi").read_text()
    listed = [line.rpartition(" as ")[2] for line in text.splitlines() if line.startswith("from ")]
    assert sorted(listed) == sorted(set(listed)) == dir(nuat)
    assert {"PGD", "NuAT", "fit", "evaluate", "__version__"} <= set(nuat.__all__) < set(listed)
    for name in nuat.__all__:
        assert getattr(nuat, name) is not None
    assert {"torch", "attacks"}.isdisjoint(nuat.__all__) and nuat.attacks is attacks
    with pytest.raises(AttributeError, match="no attribute 'PDG'"):
        nuat.PDG  # noqa: B018


def test_type_checkers_see_every_public_name_as_reexported() -> None:
    """A stub re-exports only what it imports under its own name."""
    for node in ast.parse((SOURCE / "__init__.pyi").read_text()).body[1:]:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.asname == alias.name for alias in node.names)


def test_every_method_and_every_attack_of_the_tables_is_reachable() -> None:
    used = {type(row.method).__name__ for row in list_recipes()}
    assert used <= set(nuat.__all__) and used <= set(methods.__all__)
    kinds = {kind for kind in attacks.attack_registry.values() if isinstance(kind, type)}
    assert {kind.__name__ for kind in kinds} <= set(nuat.__all__)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("nuat.methods.")])
def test_a_method_knows_no_optimizer_and_no_device(name: str) -> None:
    text = (SOURCE / Path(*name.split(".")[1:])).with_suffix(".py").read_text()
    for word in ("torch.optim", "torch.distributed", "torch.nn.parallel", "cuda", "device="):
        assert word not in text
