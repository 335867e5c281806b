"""Text from files and names, made safe to print."""

from __future__ import annotations

import unicodedata
from typing import Any

from rich.console import Console


def escape_unprintable(text: str) -> str:
    r"""Replace what a terminal would not show, or would obey, by its escape: ESC becomes `\x1b`.

    These are control characters, line breaks, marks that reverse the direction of writing, and
    bytes of file names that are no text. Spaces and letters of all scripts stay as they are.
    """
    return "".join(c if _is_visible(c) else _escape(c) for c in text)


def plain_console(**options: Any) -> Console:
    """A console that shows text as it is: `[a]` is no markup for it, and `:cat:` no emoji."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def _is_visible(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
