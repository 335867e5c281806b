"""What runs are called when they are shown side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nuat.report.folders import Shown, VerdictFolder
from nuat.threat_models import Ball, norms


@dataclass(frozen=True)
class Name:
    """What a run is called; runs of one `kind` differ in nothing but the seed."""

    kind: str
    seed: str = ""

    def __str__(self) -> str:
        return f"{self.kind}, {self.seed}" if self.seed else self.kind


def names(runs: Sequence[Shown]) -> list[Name]:
    """The name of each run's recipe, or of the folder of verdicts, and what tells namesakes apart.

    Folders of the same name are called by their paths.
    """
    folders = Counter(run.name for run in runs if isinstance(run, VerdictFolder))
    marks = [
        {"recipe": run.name if folders[run.name] == 1 else str(run.path)}
        if isinstance(run, VerdictFolder)
        else _marks(run.config)
        for run in runs
    ]
    return [_name(run, own, marks) for run, own in zip(runs, marks, strict=True)]


def _name(run: Shown, own: Mapping[str, str], every: Sequence[Mapping[str, str]]) -> Name:
    namesakes = [marks for marks in every if marks["recipe"] == own["recipe"]]
    telling = [key for key in own if len({marks.get(key) for marks in namesakes}) > 1]
    parts = [own[key] for key in telling if key != "seed"]
    kind = f"{own['recipe']} ({', '.join(parts)})" if parts else own["recipe"]
    seed = own["seed"] if "seed" in telling else ""
    if namesakes.count(own) > 1:
        seed = f"{seed} in {run.path.name}".strip()
    return Name(printable(kind), printable(seed))


def _marks(config: Mapping[str, Any]) -> dict[str, str]:
    """The name of the recipe, and what may tell one run of it from another."""
    recipe = config["recipe"]
    return {
        "recipe": str(recipe["name"]),
        "data": str(config["data"]["name"]),
        "model": str(config["model"]),
        "ball": ball_text(recipe["ball"]),
        "epochs": f"{recipe['epochs']} epoch{'' if recipe['epochs'] == 1 else 's'}",
        "seed": f"seed {config['seed']}",
    }


def printable(text: str) -> str:
    """The text with a blank for everything that cannot be printed, such as control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def read_ball(described: Mapping[str, Any]) -> Ball | None:
    """The ball that a config.json describes, None if its norm is not registered."""
    kind = next((norm for norm in norms.values() if norm.__name__ == described["is"]), None)
    fields = {name: value for name, value in described.items() if name != "is"}
    return kind(**fields) if kind else None


def ball_text(described: Mapping[str, Any]) -> str:
    """The ball that a config.json describes, as people write it: Linf(8/255)."""
    ball = read_ball(described)
    return repr(ball) if ball else call_text(described)


def call_text(described: Mapping[str, Any]) -> str:
    """A description as a call: {"is": "LinearRamp", "to": 8.0, "epochs": 30} -> LinearRamp(to=8, epochs=30)."""
    fields = (f"{name}={plain(value)}" for name, value in described.items() if name != "is")
    return f"{described['is']}({', '.join(fields)})"


def plain(value: Any) -> str:
    """A value without superfluous digits: 8.0 -> 8, [[0.0, 1.0]] -> [[0, 1]], None -> none."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(item) for item in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
