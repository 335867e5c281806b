"""Modules of optional dependencies, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from nuat.errors import InputError


def import_extra(extra: str, purpose: str, *modules: str) -> Any:
    """Import the modules of an extra and return the first one; an error says the `purpose`.

    Raises:
        InputError: a module is not installed; the message names the extra.
    """
    try:
        imported = [importlib.import_module(module) for module in modules]
    except ModuleNotFoundError as error:
        raise InputError(
            f"{purpose} needs the {extra} extra, but {error.name} is not installed: "
            f"pip install 'nuat[{extra}]'"
        ) from None
    return imported[0]
