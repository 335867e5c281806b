"""The pages of the documentation, and the commands and snippets in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    """(language, text) of each block of code of a page."""
    found = CODE.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def commands(text):
    """The commands of a block of shell code as lists of words, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def nuat_arguments(words):
    """What follows `nuat` in a command, or None; `torchrun ... -m nuat.cli` is one too."""
    if words[0] == "torchrun" and "nuat.cli" in words:
        return words[words.index("nuat.cli") + 1 :]
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[1:] if words[0] == "nuat" else None
