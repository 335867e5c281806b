"""What a user is told when something they gave us cannot be used."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature


class InputError(ValueError):
    """Something given is wrong; the message names the value, what is allowed, the likely fix."""


class NonFiniteError(ArithmeticError):
    """A loss or a logit is NaN or infinite; training stops and the last good checkpoint stays."""


def check_positive_int(name: str, value: object) -> None:
    """Raise InputError unless `value` is a whole number from 1 up; `name` says what it is."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number from 1 up")


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> InputError:
    """The error for a name nobody registered, with the nearest one that somebody did."""
    allowed = sorted(allowed)
    near = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}{guess} (there are: {', '.join(allowed) or 'none'})")


RESERVED = ("self", "ball", "classes", "channels", "place", "name", "path")
"""Parameters of factories that nuat fills in itself; they are no settings."""


def explain_type_error(error: Exception, name: str, make: Callable[..., object]) -> str:
    """Why `make` did not take its settings: for one it does not have, those that it has."""
    match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or match is None:
        return str(error)
    allowed = [each for each in signature(make).parameters if each not in RESERVED]
    return str(unknown_name(f"setting of {name}", match[1], allowed))
