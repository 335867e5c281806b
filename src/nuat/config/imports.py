"""A name of the user's own code, `module:name`, and what it stands for."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from nuat.errors import InputError, unknown_name

FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import_path(name: str) -> bool:
    """Whether this is written as `module:name`, as entry points are."""
    return FORM.fullmatch(name) is not None


def import_object(name: str) -> Any:
    """What `module:name` stands for; modules in the working directory count.

    Raises InputError if there is no such module, or no such name in it. What goes wrong within the
    module itself is the user's to see, and comes through as it is.
    """
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"there is no Python module {module!r} for {name!r}: run the command where {module} "
            "lies, install it, or put its folder on PYTHONPATH"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [each for each in dir(found) if not each.startswith("_")]
            raise unknown_name(f"name in {module}", part, public)
        found = getattr(found, part)
    return found


def import_path(thing: type) -> str | None:
    """`module:Class` for a class that can be imported under that name, None for any other."""
    if thing.__module__ == "__main__":
        return None
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return f"{thing.__module__}:{thing.__qualname__}" if found is thing else None
