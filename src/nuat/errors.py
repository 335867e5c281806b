"""Exceptions of nuat, and checks and messages that several rooms share."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature


class InputError(ValueError):
    """An input cannot be used; the message names the value, what is allowed and the likely fix."""


class NonFiniteError(ArithmeticError):
    """A loss or a logit is NaN or infinite. Training stops and keeps its last checkpoint."""


MAX_INT = 10**12
"""The largest number of epochs, images and the like; beyond it, arithmetic would overflow."""


def check_positive_int(name: str, value: object) -> None:
    """Raise InputError unless `value` is a whole number from 1 to 10^12 that is called `name`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number from 1 up")
    if value > MAX_INT:
        raise InputError(f"{name} is more than {MAX_INT:,}, the largest that is allowed")


def check_fraction(name: str, value: object) -> None:
    """Raise InputError unless `value` is a number from 0 to 1; `name` is what to call it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}, but must be a number from 0 to 1")


def check_seed(seed: object) -> None:
    """Raise InputError unless `seed` is a whole number from 0 up."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}, but must be a whole number from 0 up")


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not allowed: it lists those that are, the most similar first."""
    allowed = sorted(allowed)
    similar = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    guess = f"; did you mean {similar[0]!r}?" if similar else ""
    return InputError(f"unknown {kind} {name!r}{guess} (there are: {', '.join(allowed) or 'none'})")


RESERVED = ("self", "ball", "classes", "channels", "name", "path")
"""Parameters of factories that nuat sets itself, so that they are not settings."""


def explain_type_error(error: Exception, name: str, make: Callable[..., object]) -> str:
    """The message of an error of `make(**settings)`; for an unknown setting, the valid ones."""
    match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or match is None:
        return str(error)
    allowed = [parameter for parameter in signature(make).parameters if parameter not in RESERVED]
    return str(unknown_name(f"setting of {name}", match[1], allowed))
