"""The model card: threat model, robust accuracy, training, data and license of a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from nuat.checkpoints import LoadedModel
from nuat.checkpoints.fields import ONLY_WITH_INIT, RUN_CONFIG, check_fields
from nuat.evaluation import EvaluationResult
from nuat.evaluation.intervals import wilson
from nuat.nn.fingerprint import fingerprint
from nuat.runtime.text import escape_unprintable
from nuat.runtime.versions import versions

UNKNOWN = "Unknown: nothing is recorded with these weights."


class AccuracyRow(NamedTuple):
    """One row of the table of accuracies, with Wilson's 95 % interval [low, high]."""

    evaluation: str
    ball: str
    attack: str
    correct: int
    images: int
    accuracy: float
    low: float
    high: float


def model_card(loaded: LoadedModel, license: str = "unknown") -> str:
    """Return the model card in Markdown, with the Hub's metadata as YAML front matter.

    It shows those evaluations in the run's scores/ that were made with exactly these weights.
    """
    config = loaded.run.config if loaded.run else {}
    scores = loaded.run.scores if loaded.run else {}
    weights = fingerprint(loaded.model)
    if loaded.run is not None:
        check_fields(config, RUN_CONFIG, f"{loaded.run.path}/config.json", optional=ONLY_WITH_INIT)
    evaluations = {
        name: EvaluationResult.from_dict(saved, f"scores/{name}.json")
        for name, saved in scores.items()
        if saved.get("model_fingerprint") == weights
    }
    rows = [row for name, result in evaluations.items() for row in _rows(name, result)]
    data = public_name(loaded.data) if loaded.data else None
    recipe = loaded.metadata.get("recipe")
    title = _title(loaded.model_name, recipe, data)
    notes = dict.fromkeys(note for result in evaluations.values() for note in result.notes)
    recorded = config.get("versions") or versions()
    return _template().render(
        unknown=UNKNOWN,
        license=license,
        title=title,
        hub_dataset=data if data and re.fullmatch(r"[\w-]+", data) else None,
        model_index=_model_index(title, data, rows) if data and rows else None,
        ball=loaded.ball,
        norm=type(loaded.ball).__name__,
        accuracies=rows,
        notes=notes,
        other_evaluations=len(scores) - len(evaluations),
        training=json.dumps(_training(config), indent=2) if config else None,
        parameters=config.get("parameters"),
        model_name=loaded.model_name,
        recipe=recipe,
        data=data,
        sizes=config.get("data"),
        classes=loaded.classes or (),
        image_shape=_image_shape(loaded.metadata),
        versions=", ".join(f"{name} {version}" for name, version in recorded.items()),
    )


def public_name(data: str) -> str:
    """Drop the path of a data set: `folder:/home/me/birds` -> `folder:birds`."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{PurePath(path).name}" if colon and "/" in path else data


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # the card is Markdown
    )
    # jinja2's own tojson escapes for HTML: a quote in a name would become \u0027
    environment.filters["tojson"] = json.dumps
    environment.filters |= {"text": markdown_text, "code": markdown_code}
    return environment.get_template("card.md.j2")


def _title(model_name: str, recipe: str | None, data: str | None) -> str:
    training = f" trained with {recipe}" if recipe else ""
    return f"{model_name}{training}{f' on {data}' if data else ''}"


def _rows(name: str, result: EvaluationResult) -> Iterator[AccuracyRow]:
    images = len(result.indices)
    accuracies = {"none (clean)": result.clean_accuracy}
    accuracies |= {attack: result.robust_accuracy(attack) for attack in result.robust}
    accuracies["worst case"] = result.worst_case_accuracy
    for attack, accuracy in accuracies.items():
        correct = round(accuracy * images)
        interval = wilson(correct, images)
        yield AccuracyRow(name, result.ball, attack, correct, images, correct / images, *interval)


def _model_index(title: str, data: str, rows: list[AccuracyRow]) -> list[dict[str, Any]]:
    """Return the results as the Hub's model-index, which it shows beside a model."""
    metrics = [
        {
            "type": "accuracy",
            "name": f"{row.ball}, attack: {row.attack}, {row.images} images",
            "value": round(row.accuracy, 6),
        }
        for row in rows
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data},
        "metrics": metrics,
    }
    return [{"name": title, "results": [result]}]


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of config.json that reproduce the training, without private paths."""
    training = {key: config[key] for key in ("recipe", "seed", "init") if key in config}
    training["recipe"] = training["recipe"] | {"data": public_name(training["recipe"]["data"])}
    return training


def _image_shape(metadata: Mapping[str, str]) -> str:
    if "image_size" not in metadata:
        return "[B, C, H, W]"
    height, width = json.loads(metadata["image_size"])
    return f"[B, {metadata['channels']}, {height}, {width}]"


def markdown_text(text: str) -> str:
    """Write a name of the user or of a file so that Markdown and HTML show it as it is."""
    escaped = re.sub(r"([\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|^[#+=-])", r"\\\1", str(text))
    return escape_unprintable(escaped)


def markdown_code(text: object) -> str:
    """Write a text as code, between more backticks than it contains in a row."""
    code = escape_unprintable(str(text))
    ticks = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{ticks} {code} {ticks}" if "`" in code else f"`{code}`"
