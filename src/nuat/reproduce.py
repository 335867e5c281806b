"""Reproducing a table: train its recipes, attack each model, write one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nuat.attacks import canonical_name, parse_attack
from nuat.checkpoints import load_model
from nuat.checkpoints.run import Run
from nuat.config.serialization import to_dict
from nuat.data import Splits, load_dataset
from nuat.errors import InputError, check_positive_int
from nuat.evaluation import DEFAULT_ATTACKS, EvaluationResult, evaluate
from nuat.nn.fingerprint import fingerprint
from nuat.numbers import plain
from nuat.recipes import get_recipe
from nuat.report import write_page
from nuat.rng import derive_seed
from nuat.training import fit


def reproduce(
    data: str,
    recipes: Sequence[str],
    out: Path | str,
    *,
    seeds: int = 1,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    epochs: int | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> list[Run]:
    """Train the named recipes on a data set and attack the models on its test split.

    What is already finished in `out` is not repeated. The report is `out`/report.html.

    Args:
        data: name of the data set.
        recipes: names of the recipes.
        out: folder of the runs, which are named RECIPE-SEED.
        seeds: each recipe is trained with the seeds 0 to `seeds` - 1.
        attacks: names of the attacks.
        epochs: number of epochs instead of the recipes'; rescales their schedules.
        device: as in `fit`.
        threads: as in `fit`.

    Returns:
        The runs, recipe by recipe.

    Raises:
        InputError: an argument cannot be used; nothing was trained.
    """
    seeds = plain(seeds)
    check_positive_int("seeds", seeds)
    out, splits = Path(out), load_dataset(data)
    chosen = [get_recipe(name, data) for name in recipes]
    if epochs is not None:
        chosen = [recipe.with_epochs(epochs) for recipe in chosen]
    attacks = [canonical_name(name) for name in attacks]
    for kind, names in (("rows", list(recipes)), ("attacks", attacks)):
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"{kind} names {', '.join(repeated)} more than once: name each once, and use "
                "--seeds N for several runs of it"
            )
    for name in attacks:
        parse_attack(name, chosen[0].ball)  # to reject an unknown attack before training
    runs = []
    for recipe in chosen:
        for seed in range(seeds):
            folder = out / f"{recipe.name}-{seed}"
            run = fit(recipe, data=splits, out=folder, seed=seed, device=device, threads=threads)
            _evaluate_run(run, splits, attacks, device)
            runs.append(run)
    models = {run.path: load_model(run.path).model for run in runs}
    write_page(runs, out / "report.html", models=models, images=splits.test)
    return runs


def _evaluate_run(run: Run, data: Splits, attacks: Sequence[str], device: str | None) -> None:
    """Attack the model of a run on the test split, unless the run has this result already."""
    loaded = load_model(run.path, device=device)
    assert loaded.ball is not None, "every recipe has a threat model"
    model_fingerprint = fingerprint(loaded.model)
    if "test" in run.scores:
        saved = EvaluationResult.from_dict(run.scores["test"])
        same_attacks = saved.attacks == to_dict(
            {name: parse_attack(name, loaded.ball) for name in attacks}
        )
        same_model = saved.model_fingerprint == model_fingerprint
        if same_attacks and same_model and len(saved.indices) == len(data.test):
            return
    digest = derive_seed(model_fingerprint, *attacks)
    result = evaluate(
        loaded.model,
        data.test,
        loaded.ball,
        attacks,
        out=run.path / "scores" / f"test-{digest:016x}",
        metadata={"data": data.name, "split": "test", "model": loaded.model_name},
        quiet=False,
    )
    run.save_scores("test", result.to_dict())
