"""table.md and table.json of `nuat reproduce`: our figures beside the published ones."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from nuat.checkpoints.run import Run
from nuat.data import Splits
from nuat.evaluation import EvaluationResult
from nuat.evaluation.intervals import wilson
from nuat.methods.cost import STANDARD_STEP
from nuat.recipes import get_recipe
from nuat.recipes.published import Table
from nuat.runtime.files import atomic_write
from nuat.runtime.text import escape_unprintable
from nuat.runtime.versions import versions

FORMAT_VERSION = 1
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Reproduction:
    """The arguments of `nuat reproduce`.

    Attributes:
        table: the table.
        rows: the names of the recipes.
        seeds: the number of runs of each.
        data: the data that it trains and attacks on.
        attacks: the names of the attacks.
        command: the command line, or "".
        overrides: the fields that were set in every recipe, and their values.
        search_precision: the precision of the attacks' search.
    """

    table: Table
    rows: Sequence[str]
    seeds: int
    data: Splits
    attacks: Sequence[str]
    command: str
    overrides: Mapping[str, str]
    search_precision: str


def write_table(report: Reproduction, runs: Sequence[Run], folder: Path) -> None:
    """Write table.md and table.json on the runs that are done, into the folder of the runs."""
    content = summarize_runs(report, runs)
    _write_if_new(folder / "table.md", render_markdown(content))
    _write_if_new(folder / "table.json", json.dumps(content, indent=2) + "\n")


def _write_if_new(path: Path, text: str) -> None:
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        atomic_write(path, lambda file: file.write_bytes(content))


def summarize_runs(report: Reproduction, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the content of table.json (docs/file_formats.md)."""
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        by_row.setdefault(run.config["recipe"]["name"], []).append(run)
    rows = [_summarize_row(report.table, name, each) for name, each in by_row.items()]
    missing = report.seeds * len(report.rows) - len(runs)
    return {
        "format_version": FORMAT_VERSION,
        "table": report.table.name,
        "published_as": report.table.title,
        "command": report.command,
        "data": report.data.name,
        "images": {name: len(report.data[name]) for name in ("train", "val", "test")},
        "attacks": list(report.attacks),
        "missing_runs": missing,
        "rows": rows,
        "scaled_down": list(_scaled_down(report, rows)),
        "hardware": _hardware(),
        "versions": versions(),
    }


def _summarize_row(table: Table, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    configs, metrics = [run.config for run in runs], [run.metrics for run in runs]
    results = [EvaluationResult.from_dict(run.scores["test"], run.path) for run in runs]
    recipe = configs[0]["recipe"]
    steps, published = table.published.get(name, ("", {}))
    epochs = mean(lines[-1]["epoch"] for lines in metrics)
    cost = metrics[0][0]["forward_equivalents"]
    peaks = [line["peak_mib"] for lines in metrics for line in lines if "peak_mib" in line]
    return {
        "name": name,
        "seeds": [config["seed"] for config in configs],
        "images": len(results[0].indices),
        "ball": results[0].ball,
        "accuracy": {
            attack: _compare([_accuracy(result, attack) for result in results], results[0],
                             published.get(attack))
            for attack in ("clean", *results[0].robust)
        },
        "published_steps": steps,
        "attack_steps": _attack_steps(recipe["method"]),
        "epochs": epochs,
        "planned_epochs": recipe["epochs"],
        "recipe_epochs": get_recipe(name, table.data).epochs,
        "cost_per_step": cost,
        "cost_per_run": epochs * cost / STANDARD_STEP,
        "training_minutes": mean(lines[-1]["seconds"] for lines in metrics) / 60,
        "attack_minutes": mean(sum(result.seconds.values()) for result in results) / 60,
        "peak_mib": max(peaks, default=None),
        "overfitting": [
            line["catastrophic_overfitting"]
            for lines in metrics
            for line in lines
            if "catastrophic_overfitting" in line
        ],
        "source": recipe["source"],
        "note": recipe["note"],
        "notes": list(dict.fromkeys(note for result in results for note in result.notes)),
        "runs": [run.path.name for run in runs],
    }  # fmt: skip


def _accuracy(result: EvaluationResult, attack: str) -> float:
    return result.clean_accuracy if attack == "clean" else result.robust_accuracy(attack)


def _compare(
    shares: Sequence[float], result: EvaluationResult, published: float | None
) -> dict[str, Any]:
    """Return in percent: the mean over the seeds, its spread and interval, and the difference."""
    images = len(result.indices)
    low, high = wilson(round(mean(shares) * images), images)
    ours = 100 * mean(shares)
    return {
        "mean": ours,
        "deviation": 100 * stdev(shares) if len(shares) > 1 else None,
        "wilson_95": [100 * low, 100 * high],
        "published": published,
        "difference": None if published is None else ours - published,
    }


def _attack_steps(method: Mapping[str, Any]) -> str:
    """Return the gradient steps of the attack in one training step, and AWP's on the weights."""
    kind = method["is"]
    if kind == "Standard":
        return "0"
    if kind == "NuATH":
        return "1 or 2"
    if kind == "AWP":
        return str(int(_attack_steps(method["base"])) + 1)
    if kind == "NuAT2":
        return "2"
    return str(method.get("steps") or method.get("inner", {}).get("steps", 1))


def _scaled_down(report: Reproduction, rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yield what is less than the recipes and the published table ask for, as sentences."""
    table, published = report.table, bool(report.table.published)
    others = [row for row in rows if row["planned_epochs"] != row["recipe_epochs"]]
    if others:
        epochs = (
            f"{row['name']} {row['planned_epochs']} of {row['recipe_epochs']}" for row in others
        )
        yield f"Epochs, with the schedules rescaled: {', '.join(epochs)}."
    if report.overrides:
        settings = (f"{name}={value}" for name, value in report.overrides.items())
        yield f"Settings of every recipe: {', '.join(settings)}."
    if report.search_precision != "fp32":
        yield (
            f"Attacks: they searched in {report.search_precision}; every adversarial example was "
            "verified in float32."
        )
    if report.data.name != table.data:
        yield (
            f"Data: {report.data.name} instead of {table.data}: {len(report.data.train):,} "
            f"training, {len(report.data.val):,} validation and {len(report.data.test):,} test "
            "images."
        )
    if rows and rows[0]["images"] < len(report.data.test):
        yield f"Test images: {rows[0]['images']:,} of {len(report.data.test):,} were attacked."
    if left_out := [name for name in table.attacks if name not in report.attacks]:
        yield f"Attacks: the published table also has {', '.join(left_out)}, which were not run."
    if left_out := [name for name in table.rows if published and name not in report.rows]:
        yield f"Rows: the published table also has {', '.join(left_out)}, which were not trained."
    if report.seeds == 1:
        yield "Seeds: one, so that nothing is known about the spread between seeds."


def _hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_initialized() else None
    return {"gpu": gpu, "cpu": _cpu_name(), "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    """Return the name of the CPU where Linux tells it, otherwise its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"


def render_markdown(content: Mapping[str, Any]) -> str:
    """Return the text of table.md."""
    rows = content["rows"]
    published = content["published_as"]
    train, _, test = content["images"].values()
    lines = [
        f"# Table {content['table']}",
        "",
        f"The published figures are those of {published}."
        if published
        else "These recipes are ours; no figures are published for them.",
        f"The networks were trained on {train:,} images of {content['data']} and attacked on "
        f"{rows[0]['images']:,} of {test:,} test images, in the threat model {rows[0]['ball']}.",
    ]
    if content["missing_runs"]:
        lines.append(f"**Unfinished: {content['missing_runs']} of the runs are still to be done.**")
    if content["command"]:
        lines += ["", "```bash", content["command"], "```"]
    lines += ["", "## What was scaled down", ""]
    lines += [f"* {line}" for line in content["scaled_down"]] or ["Nothing."]
    lines += ["", *_accuracy_section(rows, bool(published))]
    lines += [*_cost_section(rows), *_recipe_section(rows)]
    hardware = content["hardware"]
    lines += [
        "## Hardware",
        "",
        f"Of the last command: {hardware['gpu'] or 'no GPU'}; {hardware['cpu']}, "
        f"torch on {hardware['threads']} of them; "
        + ", ".join(f"{name} {number}" for name, number in content["versions"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _accuracy_section(rows: Sequence[Mapping[str, Any]], published: bool) -> list[str]:
    names = list(rows[0]["accuracy"])
    cells = [[row["name"], *map(_ours, row["accuracy"].values())] for row in rows]
    title = "Accuracy in %"
    if published:
        title += ": ours / published"
        for row, line in zip(rows, cells, strict=True):
            for i, figures in enumerate(row["accuracy"].values(), 1):
                line[i] += f" / {_number(figures['published'], 2)}"
    lines = [f"## {title}", "", *_table(["row", *names], cells)]
    heads = ["row", "attack", "ours", "95 % interval"]
    heads += ["published", "difference"] if published else []
    details = []
    for row in rows:
        for name, figures in row["accuracy"].items():
            low, high = figures["wilson_95"]
            line = [row["name"], name, _ours(figures), f"{low:.1f} to {high:.1f}"]
            if published:
                line += [_number(figures["published"], 2), _number(figures["difference"], 1, "+")]
            details.append(line)
    return [
        *lines,
        f"\"clean\" is without an attack. After {chr(0xB1)} stands the standard deviation over the "
        "seeds. The interval is Wilson's, of the mean accuracy, for the number of attacked images; "
        "it does not include the spread between seeds.",
        "",
        *_table(heads, details, texts=2),
    ]  # fmt: skip


def _cost_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    published = any(row["published_steps"] for row in rows)
    heads = ["row", "AT steps (epochs)"] + ["published AT steps (epochs)"] * published
    heads += ["cost of a step", "cost of the run", "training, min", "attacks, min", "peak, MiB"]
    cells = []
    for row in rows:
        line = [row["name"], f"{row['attack_steps']} ({row['epochs']:g})"]
        line += [row["published_steps"] or DASH] * published
        line += [f"{row['cost_per_step']:.1f}", f"{row['cost_per_run']:,.1f}"]
        line += [f"{row['training_minutes']:,.2f}", f"{row['attack_minutes']:,.2f}"]
        cells.append([*line, _number(row["peak_mib"], 0)])
    return [
        "## Cost of a run",
        "",
        *_table(heads, cells),
        "AT steps are the steps of the attack in one training step. The cost of a step is counted, "
        "in forward passes of the batch; that of the run is in epochs of standard training on the "
        f"same images, of {STANDARD_STEP} forward passes a step. Minutes are means over the seeds; "
        "those of training leave out validation. The peak is that of GPU memory in training.",
        "",
    ]


def _recipe_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [
        [row["name"], row["source"], row["note"], ", ".join(f"{run}/" for run in row["runs"])]
        for row in rows
    ]
    lines = [
        "## Recipes and logs",
        "",
        *_table(["row", "settings from", "note", "folder"], cells, 4),
    ]
    lines += [
        "In each folder, config.json is the recipe, metrics.jsonl the log of the training, and "
        "scores/ the evaluation with the verdict on every image.",
        "",
    ]
    remarks = [
        f"* {row['name']}: {text}" for row in rows for text in (*row["overfitting"], *row["notes"])
    ]
    return [*lines, *remarks, ""] if remarks else lines


def _ours(figures: Mapping[str, Any]) -> str:
    deviation = figures["deviation"]
    spread = "" if deviation is None else f" \N{PLUS-MINUS SIGN} {deviation:.1f}"
    return f"{figures['mean']:.1f}{spread}"


def _number(value: float | None, decimals: int, sign: str = "") -> str:
    return DASH if value is None else f"{value:{sign},.{decimals}f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """Return the lines of a Markdown table, whose columns after the first `texts` are numbers."""
    rules = ["---"] * texts + ["--:"] * (len(heads) - texts)
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join(rules) + "|"]
    for row in rows:
        cells = (escape_unprintable(cell).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
