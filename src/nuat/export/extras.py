"""Modules that come with an extra, and are imported only when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from nuat.errors import InputError


def extra(name: str, *modules: str) -> Any:
    """The first of the modules; all of them are imported.

    Raises InputError that names the extra if one is not installed.
    """
    try:
        found = [importlib.import_module(module) for module in modules]
    except ModuleNotFoundError as error:
        raise InputError(
            f"this needs the {name} extra, and there is no {error.name}: pip install 'nuat[{name}]'"
        ) from None
    return found[0]
