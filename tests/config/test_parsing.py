"""Values are read from text, and no other code is run."""

from typing import Any

import pytest

from nuat import InputError, LinearRamp, Piecewise
from nuat.config.parsing import parse_call, parse_value
from nuat.errors import unknown_name

NAMES = {
    "LinearRamp": LinearRamp,
    "Piecewise": Piecewise,
    "frobenius": len,
    "pair": lambda *a, **k: (a, k),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("  3 ", 3),
        ("1e-3", 0.001),
        ("-2", -2),
        ("-8/255", -8 / 255),
        ("2*3 + 4 - 1", 9),
        ("(1 + 2) * 3", 9),
        ("True", True),
        ("None", None),
        ("'text'", "text"),
        ("(1, 2.5)", (1, 2.5)),
        ("[1, [2, 3]]", (1, (2, 3))),
        ("()", ()),
        ("frobenius", len),
        ("LinearRamp(4.5, epochs=90)", LinearRamp(4.5, 90)),
        ("LinearRamp(to=9/2, epochs=2*45)", LinearRamp(4.5, 90)),
        ("Piecewise(((0, 1), (5, 1), (5, 0.1)))", Piecewise(((0, 1), (5, 1), (5, 0.1)))),
        ("pair(1, LinearRamp(1, 2), a=(3,))", ((1, LinearRamp(1, 2)), {"a": (3,)})),
    ],
)
def test_parse_value(text: str, value: Any) -> None:
    read = parse_value(text, NAMES)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "1 +",
        "a = 1",
        "1; 2",
        "1\n2",
        "import os",
        "'a'.upper",
        "'a'.upper()",
        "LinearRamp.__init__",
        "LinearRamp.__class__.__mro__",
        "frobenius.__globals__",
        "__import__('os')",
        "__import__",
        "eval('1')",
        "open('/etc/passwd')",
        "exit()",
        "(lambda: 1)()",
        "lambda: 1",
        "[x for x in (1, 2)]",
        "(x for x in (1, 2))",
        "{x: 1 for x in (1, 2)}",
        "{1, 2}",
        "{'a': 1}",
        "f'{1}'",
        "f'{frobenius}'",
        "(1, 2)[0]",
        "'abc'[0:2]",
        "2 ** 9 ** 9",
        "2 ** 3",
        "1 // 2",
        "1 % 2",
        "1 << 99",
        "1 | 2",
        "not 1",
        "~1",
        "1 if 2 else 3",
        "1 and 2",
        "1 < 2",
        "(y := 1)",
        "await 1",
        "yield",
        "pair(*(1, 2))",
        "pair(**{'a': 1})",
        "pair(**frobenius)",
        "LinearRamp(4, 90, **nothing)",
        "LinearRamp(to=1, to=2, epochs=3)",
        "(1)(2)",
        "'a'(1)",
        "1/0",
        "1 + 'a'",
        "-'a'",
        "-frobenius",
        "LinearRamp(1, 2, 3)",
        "LinearRamp(to=1)",
        "LinearRamp(1, epoch=2)",
        "Piecewise(5)",
        "Piecewise(((0,),))",
        "Piecewise(())",
        "\0",
        "1" + "0" * 400 + "/3",
        "'a' * 99999999999999999",
        "(1,) * 99999999999999999",
        "-" * 100_000 + "1",
        "+".join(["1"] * 50_000),
        "1" * 5000,
    ],
    ids=lambda text: text[:30].encode("unicode_escape").decode() or "nothing",
)
def test_parse_value_refuses(text: str) -> None:
    with pytest.raises(InputError):
        parse_value(text, NAMES)


def test_nothing_is_called_on_the_way_to_a_refusal() -> None:
    calls: list[str] = []
    names = {"f": lambda *_: calls.append("called")}
    for text in ("f.x()", "[f() for _ in (1,)]", "f[f()]", "g(f())", "f(**g)"):
        with pytest.raises(InputError):
            parse_value(text, names)
    assert calls == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LinearRmap(1, 2)", r"unknown name 'LinearRmap'; did you mean 'LinearRamp'\?"),
        ("frobenious", r"did you mean 'frobenius'\?"),
        ("LinearRamp(1, epoch=2)", r"cannot read 'LinearRamp\(1, epoch=2\)'.*epoch"),
        ("1 +", r"cannot read '1 \+': write a value such as 8/255"),
        ("LinearRamp.to", r"only numbers, names and name\(field=value\) are allowed"),
    ],
)
def test_messages_name_the_text_and_the_likely_fix(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_value(text, NAMES)


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("digits", "digits", {}),
        (" small-cnn ", "small-cnn", {}),
        ("small-cnn()", "small-cnn", {}),
        ("small-cnn(width=32)", "small-cnn", {"width": 32}),
        ("timm:resnet18(eps=8/255, lam=LinearRamp(4, 9))", "timm:resnet18", None),
        ("folder/of.images(size=(3, 4))", "folder/of.images", {"size": (3, 4)}),
        ("pgd-100(restarts=5)", "pgd-100", {"restarts": 5}),
        ("a ( b = ')' )", "a", {"b": ")"}),
    ],
)
def test_parse_call(text: str, name: str, settings: dict[str, Any] | None) -> None:
    expected = {"eps": 8 / 255, "lam": LinearRamp(4, 9)} if settings is None else settings
    assert parse_call(text, NAMES) == (name, expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(a=1)",
        "a b",
        "a(b=1",
        "a b=1)",
        "a(b=1) c",
        "a(1)",
        "a('b')",
        "a((('b', 1),))",
        "a(b)",
        "a(b=1)(c=2)",
        "a(b=1), dict(c=2)",
        "a(b=)",
        "a(b=missing)",
        "a(b='x'.upper())",
        "a(b=1, b=2)",
    ],
)
def test_parse_call_refuses_and_quotes_the_text(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_call(text, NAMES)
    assert "dict(" not in str(refused.value).replace(repr(text), "")


@pytest.mark.parametrize(
    ("name", "guess"),
    [("nuat-w", "nuat-wa"), ("NUAT-WA", None), ("pgdat", "pgd-at"), ("zzz", None)],
)
def test_unknown_suggests_the_nearest_name(name: str, guess: str | None) -> None:
    message = str(unknown_name("recipe", name, ["pgd-at", "nuat-wa", "normal"]))
    assert message.startswith(f"unknown recipe {name!r}")
    assert message.endswith("(there are: normal, nuat-wa, pgd-at)")
    assert (f"did you mean {guess!r}?" in message) if guess else "did you mean" not in message


def test_unknown_among_nothing() -> None:
    assert str(unknown_name("name", "x", [])) == "unknown name 'x' (there are: none)"
