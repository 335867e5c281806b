"""Objects of the user's own code, named `module:attribute` as entry points are."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from nuat.errors import InputError, unknown_name

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import_path(name: str) -> bool:
    """Whether `name` has the form `module:attribute`."""
    return IMPORT_PATH.fullmatch(name) is not None


def import_object(name: str) -> Any:
    """The object that `module:attribute` names; the working directory is searched as well.

    An exception raised by the module itself is not caught: the user needs its traceback.

    Raises:
        InputError: there is no such module, or no such attribute in it.
    """
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # the module exists, but something that it imports does not
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"there is no Python module {module_name!r} for {name!r}: run the command in the "
            f"folder of {module_name}, install it, or put its folder on PYTHONPATH"
        ) from None
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = [key for key in dir(value) if not key.startswith("_")]
            raise unknown_name(f"name in {module_name}", part, public)
        value = getattr(value, part)
    return value


def import_path(cls: type) -> str | None:
    """`module:Class` if the class can be imported by that name, else None."""
    if cls.__module__ == "__main__":
        return None
    value: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        value = getattr(value, part, None)
    return f"{cls.__module__}:{cls.__qualname__}" if value is cls else None
