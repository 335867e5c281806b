"""A data set of the user's own: module:factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nuat.config.imports import import_object
from nuat.errors import InputError


def factory(name: str) -> Callable[..., Any]:
    """What `package.module:function` names; modules in the working directory are found too.

    Raises InputError if there is no such function.
    """
    try:
        made = import_object(name)
    except ImportError as error:
        raise InputError(f"{name} cannot be imported: {error}") from None
    if not callable(made):
        raise InputError(f"{name} is a {type(made).__name__}, not a function that gives data")
    return made  # type: ignore[no-any-return]
