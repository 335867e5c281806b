"""A recipe as a nested list that people can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nuat.report.naming import ball_text, call_text, plain
from nuat.threat_models import norms


@dataclass(frozen=True)
class Item:
    """A line of the list, and the lines under it."""

    name: str
    text: str
    items: Sequence[Item] = ()


def outline(described: Mapping[str, Any]) -> list[Item]:
    """The fields of a described dataclass; one that holds another has its fields under it."""
    return [_item(name, value) for name, value in described.items() if name != "is"]


def _item(name: str, value: Any) -> Item:
    if not isinstance(value, Mapping):
        return Item(name, plain(value))
    if "is" not in value:
        return Item(name, "", outline(value))
    if value["is"] in {norm.__name__ for norm in norms.values()}:
        return Item(name, ball_text(value))
    if any(isinstance(part, Mapping) for part in value.values()):
        return Item(name, str(value["is"]), outline(value))
    return Item(name, call_text(value))
