"""What a user is told when something they gave us cannot be used."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something given is wrong; the message names the value, what is allowed, the likely fix."""


class NonFinite(ArithmeticError):
    """A loss or a logit is NaN or infinite; training stops and the last good checkpoint stays."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name nobody registered, with the nearest one that somebody did."""
    allowed = sorted(allowed)
    near = get_close_matches(name, allowed, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}{guess} (there are: {', '.join(allowed) or 'none'})")
