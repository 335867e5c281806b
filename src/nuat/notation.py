"""One notation for values, on the command line and in print: Python's own.

`8/255`, `Ramp(to=4.5, epochs=90)`, `PGD(steps=100, restarts=5)`, `frobenius`: numbers, fractions,
tuples, names and calls of names out of a given vocabulary. Nothing else is evaluated.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping
from typing import Any

from nuat.errors import InputError, unknown

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def parse(text: str, names: Mapping[str, Any] | None = None) -> Any:
    """The value that `text` writes down. Raises InputError naming what could not be read."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise InputError(f"cannot read {text!r} as a value, such as 8/255 or Ramp(to=4)") from None
    try:
        return _value(tree, names or {}, text)
    except (TypeError, ZeroDivisionError) as error:
        raise InputError(f"cannot read {text!r}: {error}") from None


def split(text: str, names: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """`"small-cnn(width=32)"` -> `("small-cnn", {"width": 32})`; the name may hold - . : and /."""
    match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text)
    if match is None:
        raise InputError(f"cannot read {text!r}: write a name, or name(field=value, ...)")
    name, arguments = match.group(1), match.group(2)
    return name, parse(f"dict({arguments})", {**(names or {}), "dict": dict}) if arguments else {}


def _value(node: ast.expr, names: Mapping[str, Any], text: str) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_value(item, names, text) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_value(left, names, text), _value(right, names, text))
        case ast.Name(id=name):
            if name not in names:
                raise unknown("name", name, names)
            return names[name]
        case ast.Call(func=function, args=args, keywords=keywords):
            call = _value(function, names, text)
            if not callable(call):
                raise InputError(f"cannot read {text!r}: {call!r} takes no arguments")
            return call(
                *(_value(a, names, text) for a in args),
                **{k.arg: _value(k.value, names, text) for k in keywords if k.arg},
            )
    raise InputError(f"cannot read {text!r}: only numbers, names and name(field=value) are allowed")
