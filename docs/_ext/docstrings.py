"""Docstrings of nuat as reStructuredText.

The docstrings are plain text: indented blocks are formulas or code, names stand in backquotes, two
spaces surround a formula within a sentence, and sections such as `Args:` hold `name: text` lines.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

SECTIONS = {"Args": "Arguments", "Attributes": "Fields", "Returns": "Returns", "Raises": "Raises"}
LABELS = ("Source", "When to use", "Pitfalls", "Cost")


def split_blocks(text: str) -> list[list[str]]:
    """The blocks of a docstring: lines between blank lines; a section or a code block is one."""
    blocks: list[list[str]] = []
    blank = True
    for line in inspect.cleandoc(text).splitlines():
        if not line.strip():
            blank = True
            if blocks and (_is_code(blocks[-1]) or _section(blocks[-1])):
                blocks[-1].append("")
            continue
        if blocks and line.startswith("    ") and (_section(blocks[-1]) or _is_code(blocks[-1])):
            blocks[-1].append(line)
        elif blank or not blocks:
            blocks.append([line])
        else:
            blocks[-1].append(line)
        blank = False
    return blocks


def _is_code(block: list[str]) -> bool:
    return block[0].startswith("    ")


def _section(block: list[str]) -> str | None:
    name = block[0].removesuffix(":")
    return name if block[0].endswith(":") and name in SECTIONS else None


def entries(block: list[str]) -> dict[str, str]:
    """The `name: text` lines of a section."""
    found: dict[str, str] = {}
    name = ""
    for line in filter(str.strip, block[1:]):
        if not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            found[name] = text
        else:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def inline(text: str) -> str:
    """One paragraph of plain text, with literals for names and formulas and links to arXiv."""
    formula = r"(?<=\S) {2}(?=\S)([^\n]+?)(?: {2}|(?=[.,:;]?(?:\n|$)))"
    parts = re.split(rf"`([^`]+)`|{formula}", text)
    result = ""
    for i in range(0, len(parts), 3):
        result += _escape(parts[i])
        literal = (parts[i + 1] or parts[i + 2]) if i + 2 < len(parts) else None
        if literal:
            before = "" if not result or result[-1] in " \n(" else " " if parts[i + 2] else "\\ "
            result += f"{before}``{literal.strip()}``"
            if i + 3 < len(parts) and parts[i + 3] and parts[i + 3][0] not in " \n.,:;)":
                result += " " if parts[i + 2] else "\\ "
    return result.replace("\n", " ")


def _escape(text: str) -> str:
    text = re.sub(r"([\\*|_])", r"\\\1", text)
    link = r"`arXiv:\1 <https://arxiv.org/abs/\1>`__"
    return re.sub(r"arXiv:(\d{4}\.\d{5})", link, text)


def field_texts(cls: type) -> dict[str, str]:
    """What each field of a dataclass means, from the `Attributes:` of the class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for block in split_blocks(base.__dict__.get("__doc__") or ""):
            if _section(block) == "Attributes":
                for names, text in entries(block).items():
                    texts |= dict.fromkeys(names.split(", "), text)
    return texts


def default_text(value: Any) -> str:
    """A default as one would write it."""
    return value.__name__ if inspect.isfunction(value) else repr(value)


def field_table(cls: type) -> list[str]:
    """The table of the fields of a dataclass: name, default, meaning."""
    texts = field_texts(cls)
    rows = [
        (f.name, None if f.default is MISSING else default_text(f.default), texts[f.name])
        for f in fields(cls)
        if f.name in texts
    ]
    lines = [".. list-table:: Fields", "   :header-rows: 1", "   :widths: 18 26 56", ""]
    for name, default, text in [("field", "default", "meaning"), *rows]:
        plain = name == "field"
        shown = default if plain else f"``{default}``" if default is not None else ""
        lines.append(f"   * - {name}" if plain else f"   * - ``{name}``")
        lines.append(f"     - {shown}")
        lines.append(f"     - {inline(text)}")
    return [*lines, ""] if rows else []


def to_rst(text: str, obj: Any = None) -> list[str]:
    """The lines of a docstring as reStructuredText; `obj` is what it documents."""
    lines: list[str] = []
    for block in split_blocks(text):
        lines += _block(block, obj)
    return lines


def _block(block: list[str], obj: Any) -> list[str]:
    if section := _section(block):
        if section == "Attributes" and isinstance(obj, type) and is_dataclass(obj):
            return field_table(obj)
        return _list(section, block)
    if block[0].startswith(">>>"):
        return [*block, ""]
    if _is_code(block):
        while not block[-1]:
            block.pop()
        return ["::", "", *block, ""]
    if block[0].startswith("- "):
        items = re.split(r"\n- ", "\n".join(block))
        return [f"- {inline(' '.join(item.removeprefix('- ').split()))}" for item in items] + [""]
    paragraph = "\n".join(block)
    for label in LABELS:
        if paragraph.startswith(f"{label}: "):
            return [f"**{label}.** {inline(paragraph.removeprefix(f'{label}: '))}", ""]
    return [inline(paragraph), ""]


def _list(section: str, block: list[str]) -> list[str]:
    title = f"**{SECTIONS[section]}**"
    if section == "Returns":
        return [f"{title}: {inline(' '.join(line.strip() for line in block[1:] if line))}", ""]
    lines = [title, ""]
    for name, text in entries(block).items():
        lines += [f"``{name}``", f"    {inline(text)}"]
    return [*lines, ""]
