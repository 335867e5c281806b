"""The card of a model: what it withstands, how that is known, how it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from nuat.checkpoints import LoadedModel
from nuat.evaluation.intervals import wilson
from nuat.nn.fingerprint import fingerprint
from nuat.report.naming import printable
from nuat.runtime.versions import versions
from nuat.threat_models import Ball

NOT_KNOWN = "Not known: nothing is written beside these weights."


def card(network: LoadedModel, license: str = "unknown") -> str:
    """README.md in Markdown: front matter of the Hub, then a section for each question.

    Verdicts are those in the run's scores/ that are about these very weights, each with its Wilson
    interval of 95%.
    """
    config = network.run.config if network.run else {}
    sections = {
        "Threat model": _threat(network.ball),
        "Verdicts": _verdicts(network),
        "Recipe": _recipe(network, config),
        "Data": _data(network, config),
        "Use": _use(network),
        "Versions": _versions(config),
        "Licence": _licence(license),
    }
    text = "\n\n".join(f"## {title}\n{body}" for title, body in sections.items())
    return f"{_front(network, license)}\n# {_title(network)}\n\n{text}\n"


def public(data: str) -> str:
    """The name of a data set without where it lies: `folder:/home/me/birds` -> `folder:birds`."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{PurePath(path).name}" if colon and "/" in path else data


def _front(network: LoadedModel, license: str) -> str:
    lines = [
        "---",
        f"license: {json.dumps(license)}",
        "library_name: nuat",
        "pipeline_tag: image-classification",
        "tags: [adversarial-robustness, adversarial-training, pytorch, safetensors]",
    ]
    if re.fullmatch(r"[\w-]+", network.data or ""):
        lines.append(f"datasets: [{network.data}]")
    return "\n".join([*lines, "---"])


def _title(network: LoadedModel) -> str:
    recipe = network.about.get("recipe")
    data = public(network.data) if network.data else None
    parts = (
        network.model_name,
        f"trained with {recipe}" if recipe else "",
        f"on {data}" if data else "",
    )
    return printable(" ".join(part for part in parts if part))


def _threat(ball: Ball | None) -> str:
    if ball is None:
        return NOT_KNOWN
    norm = type(ball).__name__
    return (
        f"`{ball}`: perturbations of {norm} norm up to {ball.eps:.6g}, of images in [0, 1] that "
        "stay there. Nothing is claimed about any other perturbation."
    )


def _verdicts(network: LoadedModel) -> str:
    scores = network.run.scores if network.run else {}
    own = fingerprint(network.model)
    about_these = {
        name: each for name, each in scores.items() if each.get("model_fingerprint") == own
    }
    lines = [line for name, each in about_these.items() for line in _rows(name, each)]
    if lines:
        head = "| scores | threat model | attack | images that stand | share | 95% interval |"
        lines = [head, "|---|---|---|--:|--:|--:|", *lines]
    else:
        lines = ["None: these weights have not been attacked. `nuat evaluate` does that."]
    notes = {note: None for each in about_these.values() for note in each.get("notes", ())}
    lines += [f"\n{printable(note)}" for note in notes]
    if others := len(scores) - len(about_these):
        lines += ["", f"EvaluationResult of other weights of this run, left out: {others}."]
    return "\n".join(lines)


def _rows(name: str, scores: Mapping[str, Any]) -> Iterator[str]:
    images = scores["num_images"]
    shares = {
        "none (clean)": scores["clean_accuracy"],
        **scores["robust_accuracy"],
        "worst of them": scores["worst_case_accuracy"],
    }
    for attack, share in shares.items():
        standing = round(share * images)
        low, high = wilson(standing, images)
        yield (
            f"| {name} | `{scores['ball']}` | {attack} | {standing} of {images} | {share:.1%} "
            f"| {low:.1%} to {high:.1%} |"
        )


def _recipe(network: LoadedModel, config: Mapping[str, Any]) -> str:
    if not config:
        return f"`{network.about['recipe']}`" if "recipe" in network.about else NOT_KNOWN
    told = {key: config[key] for key in ("recipe", "seed", "init") if key in config}
    told["recipe"] = told["recipe"] | {"data": public(told["recipe"]["data"])}
    parameters = f"{config['parameters']:,} parameters"
    text = json.dumps(told, indent=2)
    return f"`{network.model_name}`, {parameters}. All of it:\n\n```json\n{text}\n```"


def _data(network: LoadedModel, config: Mapping[str, Any]) -> str:
    if network.data is None:
        return NOT_KNOWN
    lines = [f"`{public(network.data)}`"]
    if data := config.get("data"):
        sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test"))
        lines[0] += f": {sizes}. Weights were chosen on val."
    if network.classes:
        names = ", ".join(printable(name) for name in network.classes)
        lines.append(f"{len(network.classes)} classes, in order: {names}.")
    return "\n\n".join(lines)


def _use(network: LoadedModel) -> str:
    channels, size = network.about.get("channels"), network.about.get("size")
    shape = f"[B, {channels}, {', '.join(map(str, json.loads(size)))}]" if size else "[B, C, H, W]"
    return (
        f"Images {shape} in [0, 1], not normalized, to logits.\n\n```python\nimport nuat\n\n"
        'f = nuat.from_pretrained("this repository or its folder").model\nlogits = f(images)\n```'
    )


def _versions(config: Mapping[str, Any]) -> str:
    made_with = config.get("versions")
    told = ", ".join(f"{name} {value}" for name, value in (made_with or versions()).items())
    return f"{'LoadedModel' if made_with else 'Written'} with {told}."


def _licence(license: str) -> str:
    return "Not stated." if license == "unknown" else f"`{license}`"
