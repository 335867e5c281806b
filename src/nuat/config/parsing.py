"""One notation for values, on the command line and in print: Python's own.

`8/255`, `LinearRamp(to=4.5, epochs=90)`, `PGD(steps=100, restarts=5)`, `frobenius`: numbers, fractions,
tuples, names and calls of names out of a given vocabulary. Nothing else is evaluated.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from nuat.errors import InputError, unknown_name

T = TypeVar("T")

FEW = 10
"""Names that are soon read; more are not listed to somebody who meant none of them."""

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def parse_value(text: str, names: Mapping[str, Any] | None = None) -> Any:
    """The value that `text` writes down. Raises InputError naming what could not be read."""
    return _reading(text, lambda: _value(_tree(text), names or {}))


def parse_call(text: str, names: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """`"small-cnn(width=32)"` -> `("small-cnn", {"width": 32})`; the name may hold - . : and /.

    A path behind `folder:` or `npz:` may hold anything; settings are a last (field=value, ...).
    """
    place = re.fullmatch(r"\s*((?:folder|npz):.+?)\s*(\(\s*(?:\w+\s*=.*)?\))?\s*", text)
    match = place or re.fullmatch(r"\s*([^()\s]+)\s*(\(.*\))?\s*", text)
    if match is None:
        raise InputError(f"cannot read {text!r}: write a name, or name(field=value, ...)")
    name, arguments = match.group(1), match.group(2) or "()"

    def settings() -> dict[str, Any]:
        call = _tree(f"name{arguments}")
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise TypeError("write name(field=value, ...)")
        return _keywords(call, names or {})

    return name, _reading(text, settings)


def _reading(text: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except InputError:
        raise
    except SyntaxError:
        why = "write a value such as 8/255 or LinearRamp(4, epochs=90)"
    except (ArithmeticError, TypeError, ValueError, MemoryError, RecursionError) as error:
        why = str(error) or type(error).__name__
    shown = text if len(text) < 100 else f"{text[:97]}..."
    raise InputError(f"cannot read {shown!r}: {why}") from None


def _tree(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, names)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_number(left, names), _number(right, names))
        case ast.Name(id=name):
            if name not in names:
                raise unknown_name("name", name, names)
            return names[name]
        case ast.Call(func=function, args=args):
            call = _value(function, names)
            if not callable(call):
                raise TypeError(f"{call!r} takes no arguments")
            return call(*(_value(arg, names) for arg in args), **_keywords(node, names))
    raise TypeError("only numbers, names and name(field=value) are allowed")


def _number(node: ast.expr, names: Mapping[str, Any]) -> Any:
    value = _value(node, names)
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def _setting(key: str, node: ast.expr, names: Mapping[str, Any]) -> Any:
    """What stands behind `key=`. A word that is no name, nor near one, is said to be none."""
    if isinstance(node, ast.Name) and node.id not in names:
        if names and (len(names) < FEW or get_close_matches(node.id, names, n=1, cutoff=0.5)):
            raise unknown_name("name", node.id, names)
        raise InputError(f"{key} is {node.id}, but must be a number, or text in quotes")
    return _value(node, names)


def _keywords(call: ast.Call, names: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise TypeError("** is not allowed")
        if keyword.arg in found:
            raise TypeError(f"{keyword.arg} is given twice")
        found[keyword.arg] = _setting(keyword.arg, keyword.value, names)
    return found
