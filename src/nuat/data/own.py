"""A data set of the user's own: module:factory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from nuat.errors import InputError


def factory(name: str) -> Callable[..., Any]:
    """What `package.module:function` names; modules in the current folder are found too.

    Raises InputError if there is no such thing.
    """
    module, _, attribute = name.partition(":")
    here = "" in sys.path
    try:
        if not here:
            sys.path.insert(0, "")
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: there is no module {error.name!r} to import") from None
    except ImportError as error:
        raise InputError(f"{name}: {module} cannot be imported: {error}") from None
    finally:
        if not here:
            sys.path.remove("")
    made = getattr(found, attribute, None)
    if not callable(made):
        raise InputError(f"{name}: {module} has no function {attribute!r}")
    return made  # type: ignore[no-any-return]
