"""Names of the items of a report, and plain text for values of a configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nuat.checkpoints.fields import shorten
from nuat.errors import InputError
from nuat.report.folders import EvaluationFolder, ReportItem
from nuat.runtime.text import escape_unprintable
from nuat.threat_models import Ball, norms


def name_items(items: Sequence[ReportItem]) -> list[tuple[str, str]]:
    """Return (group, name) of each item; runs of one group differ only in their seed.

    A run has the name of its recipe, and an evaluation that of its folder. Where several items
    have the same name, their differences follow: `normal (small-cnn(width=4)), seed 7`.
    """
    folders = Counter(item.name for item in items if isinstance(item, EvaluationFolder))
    described = [
        {"name": item.name if folders[item.name] == 1 else str(item.path)}
        if isinstance(item, EvaluationFolder)
        else _describe(item.config)
        for item in items
    ]
    return [
        _name(item, fields, [other for other in described if other["name"] == fields["name"]])
        for item, fields in zip(items, described, strict=True)
    ]


def _name(
    item: ReportItem, fields: Mapping[str, str], namesakes: Sequence[Mapping[str, str]]
) -> tuple[str, str]:
    differing = [key for key in fields if len({other.get(key) for other in namesakes}) > 1]
    parts = [fields[key] for key in differing if key != "seed"]
    group = f"{fields['name']} ({', '.join(parts)})" if parts else fields["name"]
    suffix = fields["seed"] if "seed" in differing else ""
    if namesakes.count(fields) > 1:
        suffix = f"{suffix} in {item.path.name}".strip()
    name = f"{group}, {suffix}" if suffix else group
    return escape_unprintable(group), escape_unprintable(name)


def _describe(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the recipe's name and the settings in which runs of one recipe can differ."""
    recipe = config["recipe"]
    return {
        "name": str(recipe["name"]),
        "data": str(config["data"]["name"]),
        "model": str(config["model"]),
        "ball": value_text(recipe["ball"]),
        "epochs": f"{recipe['epochs']} epoch{'' if recipe['epochs'] == 1 else 's'}",
        "seed": f"seed {config['seed']}",
    }


def read_ball(described: Mapping[str, Any]) -> Ball | None:
    """Return the ball that a config.json describes, or None if its norm is not registered."""
    norm = next((norm for norm in norms.values() if norm.__name__ == described.get("is")), None)
    fields = {name: value for name, value in described.items() if name != "is"}
    try:
        return norm(**fields) if norm else None
    except TypeError:
        raise InputError(f"{shorten(dict(described))} is not a threat model of nuat") from None


def value_text(value: Any) -> str:
    """Write a value of a config.json in Python's notation, without needless digits.

    {"is": "Linf", "eps": 0.03137...} becomes `Linf(8/255)`, {"is": "LinearRamp", "to": 8.0} becomes
    `LinearRamp(to=8)`, and [[0.0, 1.0]] becomes [[0, 1]].
    """
    if isinstance(value, Mapping):
        if ball := read_ball(value):
            return repr(ball)
        fields = (f"{name}={value_text(item)}" for name, item in value.items() if name != "is")
        return f"{value.get('is', '')}({', '.join(fields)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
