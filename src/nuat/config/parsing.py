"""Values from text in Python's own notation, on the command line and in metadata.

`8/255`, `LinearRamp(to=4.5, epochs=90)`, `PGD(steps=100, restarts=5)`, `frobenius`: numbers,
fractions, tuples, given names and calls of given names. Nothing else is evaluated.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nuat.config.annotations import coerce, conforms, explain_mismatch, field_hints
from nuat.errors import InputError, unknown_name

T = TypeVar("T")
Names = Mapping[str, Any]

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def parse_value(text: str, names: Names | None = None) -> Any:
    """The value that `text` denotes. Raises InputError if it cannot be read."""
    return _with_input_errors(text, lambda: _evaluate(_parse(text), names or {}))


def parse_setting(subject: str, text: str, hint: Any, names: Names) -> Any:
    """The value that `text` denotes for a field with this annotation.

    A word that the annotation allows needs no quotes. Raises InputError, which begins with
    `subject` if the value does not conform to the annotation.
    """
    return _with_input_errors(text, lambda: _setting(subject, _parse(text), hint, names))


def parse_call(
    text: str,
    names: Names | None = None,
    hints_of: Callable[[str], Mapping[str, Any]] = lambda name: {},
) -> tuple[str, dict[str, Any]]:
    """Split `"small-cnn(width=32)"` into `("small-cnn", {"width": 32})`.

    The name may contain - . : and /. A path after `folder:` or `npz:` may contain anything; its
    settings are the (field=value, ...) at the end. Raises InputError if the text cannot be read.
    """
    text = text.strip()
    if "\n" in text:
        raise InputError(f"cannot read {text!r}: a name has no line breaks")
    path = re.fullmatch(r"\s*((?:folder|npz):.+?)\s*(\(\s*(?:\w+\s*=.*)?\))?\s*", text)
    match = path or re.fullmatch(r"\s*([^()\s]+)\s*(\(.*\))?\s*", text)
    if match is None:
        raise InputError(f"cannot read {text!r}: write a name, or name(field=value, ...)")
    name, arguments = match.group(1), match.group(2) or "()"

    def settings() -> dict[str, Any]:
        call = _parse(f"name{arguments}")
        # "(a=1)(b=2)" parses too, as a call of a call
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise TypeError("write name(field=value, ...)")
        return _keywords(call, names or {}, hints_of(name))

    return name, _with_input_errors(text, settings)


def _with_input_errors(text: str, read: Callable[[], T]) -> T:
    """The result of `read`; what goes wrong in it becomes an InputError that quotes the text."""
    try:
        return read()
    except InputError:
        raise
    except SyntaxError:
        reason = "write a value such as 8/255 or LinearRamp(4, epochs=90)"
    except (ArithmeticError, TypeError, ValueError, MemoryError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    quoted = text if len(text) < 100 else f"{text[:97]}..."
    raise InputError(f"cannot read {quoted!r}: {reason}") from None


def _parse(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _evaluate(node: ast.expr, names: Names) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_evaluate(item, names) for item in items)
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
            callee = _evaluate(function, names)
            if not callable(callee):
                raise TypeError(f"{callee!r} takes no arguments")
            settings = _keywords(node, names, field_hints(callee))
            return callee(*(_evaluate(arg, names) for arg in args), **settings)
    raise TypeError("only numbers, names and name(field=value) are allowed")


def _number(node: ast.expr, names: Names) -> Any:
    value = _evaluate(node, names)
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def _keywords(call: ast.Call, names: Names, hints: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        key, node = keyword.arg, keyword.value
        if key is None:
            raise TypeError("** is not allowed")
        if key in values:
            raise TypeError(f"{key} is given twice")
        if isinstance(node, ast.Name) and not names:
            raise InputError(f"{key} is {node.id}, but must be a number, or text in quotes")
        # an unknown setting is left to the callee, whose error names those that there are
        hint = hints.get(key, Any)
        values[key] = _setting(key, node, hint, names) if hints else _evaluate(node, names)
    return values


def _setting(subject: str, node: ast.expr, hint: Any, names: Names) -> Any:
    """The value of a setting, which must conform to its annotation; `subject` begins the error."""
    word = node.func if isinstance(node, ast.Call) and not (node.args or node.keywords) else node
    if isinstance(word, ast.Name) and word.id not in names and (hint is not Any or word is node):
        if word is node and conforms(word.id, hint):  # any for 'any'
            return word.id
    else:
        value = _evaluate(node, names)
        if conforms(coerce(value, hint), hint):
            return value
    raise InputError(explain_mismatch(subject, ast.unparse(node), hint, names))
