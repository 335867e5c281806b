"""nuat: robust image classifiers at a few times the price of ordinary training.

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so that
`import nuat` stays fast.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any


def _read_stub() -> dict[str, tuple[str, str]]:
    """Each name that `__init__.pyi` imports, with its module and its name there."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


_PUBLIC = _read_stub()
__all__ = [name for name, (module, _) in _PUBLIC.items() if module != "nuat"]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of nuat, at its first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nuat' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    if module == "nuat":
        return import_module(f"nuat.{attribute}")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
