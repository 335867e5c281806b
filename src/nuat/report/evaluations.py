"""Merges evaluations of the same images and chooses the one that the table shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nuat.checkpoints.run import Run
from nuat.evaluation import EvaluationResult
from nuat.report.naming import value_text

NamedResult = tuple[str, EvaluationResult]
Settings = tuple[Any, int, str]
"""What an accuracy depends on: the attack, the seed and the precision of the search."""


def choose_evaluation(
    run: Run, model_fingerprint: str | None = None
) -> tuple[EvaluationResult | None, list[str]]:
    """Return the evaluation of a run that the table shows, and descriptions of all others.

    The evaluation is of the run's data set and, if `model_fingerprint` is given, of these weights.
    The test split is preferred, then the ball of the recipe, then the largest number of images,
    then the last name.
    """
    data, ball = run.config["data"]["name"], value_text(run.config["recipe"]["ball"])
    groups: dict[Any, list[NamedResult]] = {}
    for name, result in _read_scores(run, data):
        groups.setdefault(_identity(result), []).append((name, result))
    merged = [(", ".join(name for name, _ in group), merge(group)) for group in groups.values()]
    candidates = [
        (result.metadata["split"] == "test", result.ball == ball, len(result.indices), names)
        for names, result in merged
        if result.metadata["data"] == data
        if model_fingerprint in (None, result.model_fingerprint)
    ]
    chosen = max(candidates)[-1] if candidates else None
    return (
        next((result for names, result in merged if names == chosen), None),
        [
            _describe(names, result, data, model_fingerprint)
            for names, result in merged
            if names != chosen
        ],
    )


def image_ids(result: EvaluationResult) -> frozenset[tuple[int, int]]:
    """Return the index and the true class of each evaluated image."""
    return frozenset(zip(result.indices, result.labels, strict=True))


def merge(group: Sequence[NamedResult]) -> EvaluationResult:
    """Merge evaluations of the same images, of which the first gives the order of the images.

    An attack that several evaluations ran with equal settings counts as one attack; with other
    settings it keeps its own column, and the difference is added to its name: `pgd-20 (seed 1)`.
    """
    _, first = group[0]
    robust: dict[str, list[bool]] = {}
    robust_8bit: dict[str, list[bool]] = {}
    settings: dict[str, Settings] = {}
    for name, result in group:
        position = {index: i for i, index in enumerate(result.indices)}
        for column, verdicts in result.robust.items():
            attack = column
            current = _settings(result, attack)
            if current != (earlier := settings.get(attack, current)):
                attack = f"{attack} ({_difference(current, earlier) or name})"
            order = [position[index] for index in first.indices]
            _add_verdicts(robust, attack, verdicts, order)
            if column in result.robust_8bit:
                _add_verdicts(robust_8bit, attack, result.robust_8bit[column], order)
            settings[attack] = current
    attacks = {name: config for name, (config, _, _) in settings.items()}
    return replace(first, robust=robust, robust_8bit=robust_8bit, attacks=attacks)


def _add_verdicts(
    merged: dict[str, list[bool]], attack: str, verdicts: Sequence[bool], order: Sequence[int]
) -> None:
    """Add the verdicts at the positions of `order`; an image must stand in all evaluations."""
    aligned = [verdicts[position] for position in order]
    before = merged.get(attack, aligned)
    merged[attack] = [a and b for a, b in zip(before, aligned, strict=True)]


def initial_points(result: EvaluationResult) -> dict[str, str]:
    """Return the start of each attack that has one, as text: `Uniform()`."""
    configs = {name: _settings(result, name)[0] for name in result.robust}
    return {
        name: _start_text(config["start"])
        for name, config in configs.items()
        if isinstance(config, Mapping) and isinstance(config.get("start"), Mapping)
    }


def _start_text(start: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in start.items() if key != "is")
    return f"{start.get('is')}({arguments})"


def _settings(result: EvaluationResult, name: str) -> Settings:
    """Return the settings of an attack; a snapshot `pgd-20 at 7` has those of `pgd-20`."""
    attack = result.attacks.get(name, result.attacks.get(name.rpartition(" at ")[0]))
    return attack, result.seed, result.search_precision


def _difference(settings: Settings, other: Settings) -> str:
    """Return the differing seed and precision as text; "" if the attacks themselves differ."""
    attack, seed, precision = settings
    if attack != other[0]:
        return ""
    parts = (f"seed {seed}" if seed != other[1] else "", precision if precision != other[2] else "")
    return ", ".join(filter(None, parts))


def _identity(result: EvaluationResult) -> tuple[object, ...]:
    """Return what must be equal for evaluations to be merged."""
    metadata = result.metadata
    fingerprint = result.model_fingerprint
    return metadata["data"], metadata["split"], result.ball, fingerprint, image_ids(result)


def _read_scores(run: Run, data: str) -> Iterator[NamedResult]:
    """Yield the results by name; a result without a split gets the first part of its name."""
    for name, scores in sorted(run.scores.items()):
        result = EvaluationResult.from_dict(scores, f"{run.path}/scores/{name}.json")
        metadata = {"data": data, "split": name.partition("-")[0]} | result.metadata
        yield name, replace(result, metadata=metadata)


def _describe(
    names: str, result: EvaluationResult, data: str, model_fingerprint: str | None
) -> str:
    """Write `test-fgsm (60 images of test, Linf(0.1), worst 41.2 %)`."""
    metadata = result.metadata
    parts = [f"{len(result.indices):,} images of {metadata['split']}", result.ball]
    parts += [f"of other data, {metadata['data']}"] if metadata["data"] != data else []
    same_weights = model_fingerprint in (None, result.model_fingerprint)
    parts += [] if same_weights else ["of other weights"]
    parts += [f"worst {100 * result.worst_case_accuracy:.1f} %"] if result.robust else []
    return f"{names} ({', '.join(parts)})"
