"""Reproducing a table: train its recipes, attack each model, write the table and one report."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nuat.attacks import canonical_name, parse_attack
from nuat.checkpoints import load_model
from nuat.checkpoints.run import Run
from nuat.config.parsing import parse_call
from nuat.config.serialization import to_dict
from nuat.data import Splits, load_dataset
from nuat.errors import InputError, check_positive_int, unknown_name
from nuat.evaluation import DEFAULT_ATTACKS, EvaluationResult, evaluate
from nuat.evaluation.request import select_indices
from nuat.evaluation.search_model import Precision
from nuat.nn.fingerprint import fingerprint
from nuat.numbers import plain
from nuat.recipes import Recipe, get_recipe
from nuat.recipes.published import Table, find_table
from nuat.report import write_page
from nuat.report.reproduction import Reproduction, write_table
from nuat.rng import derive_seed
from nuat.runtime.signals import OUT_OF_TIME, Stopped, out_of_time
from nuat.training import fit


def reproduce(
    table: str,
    out: Path | str | None = None,
    *,
    rows: Sequence[str] | None = None,
    data: str | None = None,
    seeds: int = 1,
    attacks: Sequence[str] | None = None,
    samples: int | None = None,
    epochs_scale: float = 1,
    overrides: Mapping[str, str] | None = None,
    search_precision: Precision = "fp32",
    max_time: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    command: str = "",
) -> list[Run]:
    """Train the rows of a table and attack the models on the test split.

    What is already finished in `out` is not repeated, and what was interrupted goes on.
    `out`/table.md and `out`/table.json are written after each run, `out`/report.html at the end.

    Args:
        table: name of the table (see `nuat.recipes.published.find_table`), such as "mnist".
        out: folder of the runs, which are named RECIPE-SEED; by default runs/TABLE.
        rows: names of the recipes; by default those of the published table.
        data: the table's data set with other settings, such as "mnist(train=6000)".
        seeds: each recipe is trained with the seeds 0 to `seeds` - 1.
        attacks: names of the attacks; by default those of the published table.
        samples: the number of test images to attack, balanced over the classes; by default all.
        epochs_scale: factor of the epochs and the schedules of every recipe.
        overrides: fields of every recipe by name and their values as text, such as
            {"precision": "bf16"}; as in `Recipe.with_override`.
        search_precision: as in `evaluate`.
        max_time: stop after this many seconds; the same call goes on.
        device: as in `fit`.
        threads: as in `fit`.
        command: the command to print in the table.

    Returns:
        The runs, recipe by recipe.

    Raises:
        InputError: an argument cannot be used; nothing was trained.
        nuat.Stopped: `max_time` was over before the end.
    """
    chosen_table = find_table(table)
    rows = chosen_table.rows if rows is None else list(rows)
    names = list(attacks or chosen_table.attacks or DEFAULT_ATTACKS)
    names = [canonical_name(name) for name in names]
    data = data or chosen_table.data
    _check_arguments(chosen_table, rows, names, data)
    seeds = plain(seeds)
    check_positive_int("seeds", seeds)
    overrides = dict(overrides or {})
    recipes = [_scaled(get_recipe(name, chosen_table.data), epochs_scale) for name in rows]
    for path, text in overrides.items():
        recipes = [recipe.with_override(path, text) for recipe in recipes]
    for name in names:
        parse_attack(name, recipes[0].ball)  # to reject an unknown attack before training
    splits = load_dataset(data)
    indices = select_indices(splits.test, samples, None, 0)
    folder = Path("runs") / table if out is None else Path(out)
    job = _Job(splits, folder, names, indices, samples, search_precision, device, threads, max_time)
    report = Reproduction(
        chosen_table, rows, seeds, splits, names, command, overrides, search_precision
    )
    runs: list[Run] = []
    for recipe in recipes:
        for seed in range(seeds):
            run = job.train(recipe, seed)
            is_new = job.attack(run)
            runs.append(run)
            if is_new or len(runs) == seeds * len(recipes):
                # a table of finished runs is not replaced by a shorter one
                write_table(report, runs, folder)
    models = {run.path: load_model(run.path).model for run in runs}
    write_page(runs, folder / "report.html", models=models, images=splits.test)
    return runs


def _check_arguments(table: Table, rows: Sequence[str], attacks: Sequence[str], data: str) -> None:
    """Raise InputError unless the rows and the data are the table's, and nothing is repeated."""
    for kind, given in (("rows", rows), ("attacks", attacks)):
        if repeated := sorted({name for name in given if given.count(name) > 1}):
            raise InputError(
                f"{kind} names {', '.join(repeated)} more than once: name each once, and use "
                "--seeds N for several runs of it"
            )
    if not rows:
        raise InputError("rows is empty: name at least one, such as nuat-wa")
    for name in rows:
        if name not in table.recipes:
            raise unknown_name(f"row of the table {table.name}", name, table.recipes)
    if parse_call(data)[0] != table.data:
        raise InputError(
            f"the data of the table {table.name} are {table.data}, not {data!r}: to make them "
            f"smaller, give them settings, such as {table.data}(train=6000)"
        )


def _scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe for `scale` times its epochs, at least one."""
    scale = plain(scale)
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < math.inf:
        raise InputError(f"epochs_scale is {scale!r}, but must be a number above 0, such as 0.1")
    return recipe if scale == 1 else recipe.with_epochs(max(1, round(scale * recipe.epochs)))


@dataclass(frozen=True)
class _Job:
    """What all runs of a table share; `started` is when the time of `max_time` began."""

    data: Splits
    folder: Path
    attacks: Sequence[str]
    indices: Sequence[int]
    samples: int | None
    search_precision: Precision
    device: str | None
    threads: int | None
    max_time: float | None
    started: float = field(default_factory=time.monotonic)

    def train(self, recipe: Recipe, seed: int) -> Run:
        """Return the finished run. Raises Stopped if the time is over before."""
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()  # which the metrics of the run record
        run = fit(
            recipe,
            data=self.data,
            out=self.folder / f"{recipe.name}-{seed}",
            seed=seed,
            device=self.device,
            max_time=self.remaining_time(),
            threads=self.threads,
        )
        if self.max_time is not None and not run.finished:
            raise out_of_time(self.max_time)
        return run

    def remaining_time(self) -> float | None:
        """The seconds that are left of `max_time`."""
        if self.max_time is None:
            return None
        return max(0.0, self.max_time - (time.monotonic() - self.started))

    def attack(self, run: Run) -> bool:
        """Attack the model on the test split, and return False if the run has this result already.

        Raises Stopped if the time is over before.
        """
        loaded = load_model(run.path, device=self.device)
        assert loaded.ball is not None, "every recipe has a threat model"
        model_fingerprint = fingerprint(loaded.model)
        if "test" in run.scores:
            saved = EvaluationResult.from_dict(run.scores["test"])
            same_attacks = saved.attacks == to_dict(
                {name: parse_attack(name, loaded.ball) for name in self.attacks}
            )
            same_model = saved.model_fingerprint == model_fingerprint
            same_search = saved.search_precision == self.search_precision
            if same_attacks and same_model and same_search and saved.indices == list(self.indices):
                return False
        chosen = () if self.samples is None else (str(self.samples),)
        search = () if self.search_precision == "fp32" else (self.search_precision,)
        digest = derive_seed(model_fingerprint, *self.attacks, *chosen, *search)
        try:
            result = evaluate(
                loaded.model,
                self.data.test,
                loaded.ball,
                self.attacks,
                indices=self.indices,
                search_precision=self.search_precision,
                out=run.path / "scores" / f"test-{digest:016x}",
                metadata={"data": self.data.name, "split": "test", "model": loaded.model_name},
                max_time=self.remaining_time(),
                quiet=False,
            )
        except Stopped as stopped:
            if self.max_time is None or stopped.status != OUT_OF_TIME:
                raise
            raise out_of_time(self.max_time) from None  # names the time of the whole table
        run.save_scores("test", result.to_dict())
        return True
