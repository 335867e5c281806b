"""Whole tables: train the rows, attack each, put them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nuat.attacks import parse_attack
from nuat.checkpoints import load_model
from nuat.checkpoints.run import Run
from nuat.config.serialization import to_dict
from nuat.data import Splits, load_dataset
from nuat.errors import InputError
from nuat.evaluation import ATTACKS, EvaluationResult, evaluate
from nuat.nn.fingerprint import fingerprint
from nuat.recipes import get_recipe
from nuat.report import write_page
from nuat.rng import derive_seed
from nuat.training import fit


def reproduce(
    data: str,
    rows: Sequence[str],
    out: Path | str,
    *,
    seeds: int = 1,
    attacks: Sequence[str] = ATTACKS,
    epochs: int | None = None,
    device: str | None = None,
    threads: int | str | None = None,
) -> list[Run]:
    """Train each named row on a data set with so many seeds, and attack its test split.

    What is already done in `out` is not done again. `threads` is that of `fit`. The page is
    `out`/report.html.

    Returns:
        The runs, row by row.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}, but must be a whole number from 1 up")
    out, splits = Path(out), load_dataset(data)
    chosen = [get_recipe(name, data) for name in rows]
    chosen = [row if epochs is None else row.with_epochs(epochs) for row in chosen]
    for name in attacks:
        parse_attack(name, chosen[0].ball)
    runs = []
    for row in chosen:
        for seed in range(seeds):
            folder = out / f"{row.name}-{seed}"
            runs.append(
                fit(row, data=splits, out=folder, seed=seed, device=device, threads=threads)
            )
            _attack(runs[-1], splits, attacks, device)
    networks = {run.path: load_model(run.path).model for run in runs}
    write_page(runs, out / "report.html", networks=networks, images=splits.test)
    return runs


def _attack(run: Run, data: Splits, attacks: Sequence[str], device: str | None) -> EvaluationResult:
    """The scores of a run on the test split; read, if they are of these weights and attacks."""
    network = load_model(run.path, device=device)
    assert network.ball is not None, "a recipe always has a ball"
    if "test" in run.scores:
        scores = EvaluationResult.from_dict(run.scores["test"])
        wanted = to_dict({name: parse_attack(name, network.ball) for name in attacks})
        same = scores.attacks == wanted and len(scores.indices) == len(data.test)
        if same and scores.model_fingerprint == fingerprint(network.model):
            return scores
    digest = derive_seed(fingerprint(network.model), *attacks)
    folder = run.path / "scores" / f"test-{digest:016x}"
    metadata = {"data": data.name, "split": "test", "model": network.model_name}
    scores = evaluate(
        network.model, data.test, network.ball, attacks, out=folder, metadata=metadata, quiet=False
    )
    run.save_scores("test", scores.to_dict())
    return scores
