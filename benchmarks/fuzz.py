"""Random input for everything that nuat reads: no traceback, no hang, no half file.

    nice -n 19 python benchmarks/fuzz.py > benchmarks/fuzz.log

Each case changes its own copy of a small run and calls nuat in this process, in a temporary folder
that holds everything. No case names a device, and no path leads out of the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import nuat
from nuat.attacks import parse_attack
from nuat.attacks.registry import ATTACK_CLASSES
from nuat.checkpoints.weights_io import read_weights, write_weights
from nuat.cli import main
from nuat.errors import InputError, NonFiniteError
from nuat.evaluation import EvaluationResult
from nuat.evaluation.log import EvaluationLog
from nuat.runtime.checksums import KEY, checksum, with_checksum

LIMIT = 60
"""Seconds after which a case counts as a hang, on a busy machine too."""
STATUSES = {0, 1, 2, 75}
ALPHABET = st.characters(exclude_characters="/~\\", exclude_categories=())
TEXT = st.text(ALPHABET, max_size=12).filter(lambda text: ".." not in text and text != ".")
NUMBERS = st.one_of(
    st.integers(-10, 10),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 1e308, 5e-324, 2**31, 2**63, 10**12]),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.one_of(st.just(...), JUNK)), max_size=3)
BYTES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
ATTACK = ["--attack", "pgd-2"]
TINY = ["--set", "model=small-cnn(width=4)"]


def words(text: str) -> list[str]:
    return text.split()


def call(*words: str) -> int:
    """Run the command line in this process; return its exit status. A traceback is raised."""
    argv, sys.argv = sys.argv, ["nuat", *words]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        assert end.code in STATUSES, (end.code, err.getvalue())
        shown = err.getvalue()
        assert end.code in (0, None) or shown == "" or shown.startswith(("error", "warning", "0"))
        return int(end.code or 0)
    finally:
        sys.argv = argv
    raise AssertionError("main returned")


def make_template() -> None:
    """Train a run, evaluate it and write images, in the working directory."""
    command = "--epochs", "1", *TINY, "--out", "run"
    assert call("train", "fgsm-at", *command) == 0
    more = "--samples", "10", "--out", "run/adv", "--save-adversarial"
    assert call("evaluate", "run", *ATTACK, *more) == 0
    assert call("evaluate", "run", *ATTACK, "--samples", "10") == 0
    generator = numpy.random.RandomState(0)
    for name in ("a", "b"):
        Path("photos", name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.randint(0, 255, (8, 8, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")
    x, y = generator.randint(0, 255, (60, 8, 8), dtype=numpy.uint8), numpy.arange(60) % 2
    numpy.savez_compressed("images.npz", x_train=x, y_train=y)


def edit_json(value: Any, edits: list[tuple[int, Any]]) -> Any:
    """Replace, or delete for `...`, the values at random paths of a JSON value."""
    value = copy.deepcopy(value)
    for position, junk in edits:
        places = list(_places(value))
        if not places:
            return junk if junk is not ... else None
        container, key = places[position % len(places)]
        if junk is ...:
            del container[key]
        else:
            container[key] = junk
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(item)


def edit_bytes(path: Path, edits: list[tuple[int, int]], length: int | None) -> None:
    """Change bytes of a file, and cut it off at `length` thousandths."""
    content = bytearray(path.read_bytes())
    for position, byte in edits:
        content[position % len(content)] = byte
    path.write_bytes(content if length is None else content[: len(content) * length // 1000])


def arguments(words: list[str]) -> str:
    return ending(call(*words))


def ending(status: int) -> str:
    return {0: "done", 75: "out of time"}.get(status, "refused")


def attack_string(text: str) -> str:
    attack = parse_attack(text, nuat.Linf(0.1))
    attack.describe()
    return "accepted"


def override(assignment: tuple[str, str]) -> str:
    row = nuat.get_recipe("nuat-wa", "digits")
    row.with_override(*assignment)
    return "accepted"


def config(case: tuple[Any, bool, str]) -> str:
    edits, checked, command = case
    path = Path("run/config.json")
    value = edit_json(json.loads(path.read_text()), edits)
    if checked and isinstance(value, dict):
        value.pop(KEY, None)
        value = with_checksum(value)
    path.write_text(json.dumps(value))
    return ending(call(*command.split()))


def metadata(changes: dict[str, str]) -> str:
    weights, known = read_weights("run/model.safetensors")
    write_weights(Path("net.safetensors"), weights, {**known, **changes})
    nuat.load_model("net.safetensors")
    return "accepted"


def checkpoint(case: tuple[Any, int | None, str]) -> str:
    edits, length, name = case
    path = Path("run", name)
    before = path.read_bytes()
    edit_bytes(path, edits, length)
    status = call("train", "fgsm-at", "--epochs", "1", *TINY, "--out", "run", "--max-time", "0s")
    loaded = call("evaluate", "run", *ATTACK, "--samples", "2", "--out", "x")
    if name == "model.safetensors" and loaded == 0 and path.read_bytes() != before:
        wanted, found = (read_weights(Path(folder))[0] for folder in WEIGHTS)
        assert all(torch.equal(wanted[key], found[key]) for key in wanted), "changed weights"
    return "refused" if status not in (0, 75) or loaded else "done"


WEIGHTS = "../template/run/model.safetensors", "run/model.safetensors"


def journal(case: tuple[Any, Any, int | None, bool]) -> str:
    """Whatever is done to a log, an evaluation ends with the verdicts of before."""
    edits, flips, length, checked = case
    path = Path("run/adv/log-0.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    stored = json.loads(Path("run/adv/config.json").read_text())
    apart = {"versions", "model_probe"}
    evaluation = checksum({key: value for key, value in stored.items() if key not in apart})
    log = EvaluationLog(Path("run/adv"), 0, evaluation)
    log.reload()
    assert log.entries, "the log was not read"
    changed = []
    for line in lines:
        line = edit_json(line, edits)
        if checked and isinstance(line, dict):  # only a log that is forged on purpose
            line.pop(KEY, None)
            line[KEY] = checksum([evaluation, line])
        changed.append(json.dumps(line) + "\n")
    path.write_text("".join(changed))
    edit_bytes(path, flips, length)
    before = Path("run/adv/verdicts.jsonl").read_bytes()
    more = "--samples", "10", "--out", "run/adv", "--save-adversarial"
    status = call("evaluate", "run", *ATTACK, *more)
    if not checked and status == 0:
        assert Path("run/adv/verdicts.jsonl").read_bytes() == before, "other verdicts"
    return "refused" if status else "done"


def scores(case: tuple[Any, Any, bool, str]) -> str:
    edits, flips, checked, command = case
    path = next(Path("run/scores").glob("*.json"))
    right = json.loads(path.read_text())
    value = edit_json(right, edits)
    if checked and isinstance(value, dict):
        value.pop(KEY, None)
        value = with_checksum(value)
    path.write_text(json.dumps(value))
    if not checked:
        edit_bytes(path, flips, None)
        with contextlib.suppress(ValueError):
            found = EvaluationResult.from_dict(json.loads(path.read_bytes()))
            assert found == EvaluationResult.from_dict(right), "other scores"
    return ending(call(*command.split()))


def images(case: tuple[Any, int | None, str, str]) -> str:
    edits, length, name, command = case
    edit_bytes(Path(name), edits, length)
    return ending(call(*command.split(), *TINY, "--max-time", "0s"))


OPTIONS = words(
    "--attack --model --data --split --samples --indices --eps --norm --batch-size "
    "--seed --out --search-precision --device --max-time --threads --data-dir "
    "--import --set --epochs --init --on-overfitting --on-nonfinite --bad-images "
    "--rounds --onnx --state-dict --license --size --save-adversarial --cuda-graphs "
    "--help --public --classes --channels --version"
)
VALUES = st.one_of(
    TEXT,
    NUMBERS.map(str),
    st.sampled_from(
        words(
            "run digits nuat fgsm pgd-2 x.html photos images.npz folder:photos "
            "npz:images.npz linf l2 8/255 0.1 cpu 1 2 test val meta hpu cuda:9 auto 0s mit "
            "recipes attacks models data batch_size=8 lam=4 small-cnn(width=4) bf16 run/adv "
            "timm:x m:f"
        )
    ),
)
COMMANDS = st.sampled_from(
    [
        ["train", "normal", "--epochs", "1", *TINY, "--out", "t", "--max-time", "0s"],
        ["evaluate", "run", *ATTACK, "--samples", "4", "--out", "e"],
        ["report", "run", "--out", "r.html"],
        ["export", "run", "--state-dict", "net.pt"],
        ["list", "attacks"],
        ["list"],
        ["download", "none-such"],
        ["bench", "no-such-recipe"],
        ["evaluate"],
        ["train"],
        [],
    ]
)
PAIRS = st.tuples(st.sampled_from(OPTIONS), VALUES).map(list)
WORDS = st.lists(st.one_of(PAIRS, PAIRS, PAIRS, VALUES.map(lambda value: [value])), max_size=2)
MORE = WORDS.map(lambda groups: [word for group in groups for word in group if "\0" not in word])
SETTING = st.tuples(
    st.sampled_from(
        words(
            "steps restarts rel_step_size step_size start loss snapshots success_at targets "
            "batch rho eta beta p lam parts ball eps train_mode eot_samples distance "
            "reference"
        )
    ),
    st.one_of(
        NUMBERS.map(str),
        TEXT,
        st.sampled_from(
            words(
                "Uniform() Bernoulli(2) NoStart Gaussian(-1) Piecewise(((0,1),(5,0))) margin "
                "'any' StepDecay(1,at=(2,)) ('pgd-2','fgsm') (1,2) nuclear PGD(steps=2) 1/0 "
                "9**9**9"
            )
        ),
    ),
)
NAMES = st.sampled_from([*ATTACK_CLASSES, "autoattack", "custom", "aa", "pgd-"])
CALLS = st.builds(
    lambda name, steps, settings: (
        f"{name}{steps}({', '.join(f'{key}={value}' for key, value in settings)})"
    ),
    NAMES,
    st.sampled_from(["", "-2", "-0", "--1", "-999999999999999", "2"]),
    st.lists(SETTING, max_size=3),
)
FIELDS = st.sampled_from(
    words(
        "lr lam epochs batch_size model method.lam method.attack method.start ball "
        "ball.eps augment augment.pad emas optimizer momentum weight_decay precision "
        "name data val_attack select method lr.by lr.at lam.to source note seed"
    )
)
CONFIG_COMMANDS = st.sampled_from(
    ["report run", "export run --out new", f"evaluate run {' '.join(ATTACK)} --samples 2 --out x"]
)
SCORE_COMMANDS = st.sampled_from(["report run", "export run --out new"])
TRAIN = "train normal --epochs 1 --out t --data"
METADATA = words(
    "model recipe data classes channels image_size ball epoch probe_logits model_class"
)
LENGTH = st.one_of(st.none(), st.integers(0, 1000))

Kind = tuple[st.SearchStrategy[Any], Callable[[Any], str], int]
KINDS: dict[str, Kind] = {
    "arguments": (st.builds(lambda a, b: a + b, COMMANDS, MORE), arguments, 2500),
    "attack strings": (st.one_of(TEXT, CALLS), attack_string, 3000),
    "--set": (
        st.tuples(st.one_of(FIELDS, TEXT), VALUES | SETTING.map(lambda s: s[1])),
        override,
        1800,
    ),
    "config": (st.tuples(EDITS, st.booleans(), CONFIG_COMMANDS), config, 500),
    "metadata": (
        st.dictionaries(st.sampled_from(METADATA), TEXT | JUNK.map(json.dumps), max_size=3),
        metadata,
        700,
    ),
    "checkpoints": (
        st.tuples(BYTES, LENGTH, st.sampled_from(["checkpoint.pt", "model.safetensors"])),
        checkpoint,
        300,
    ),
    "journals": (st.tuples(EDITS, BYTES, LENGTH, st.booleans()), journal, 400),
    "scores": (st.tuples(EDITS, BYTES, st.booleans(), SCORE_COMMANDS), scores, 400),
    "images": (
        st.one_of(
            st.tuples(BYTES, LENGTH, st.just("photos/a/0.png"), st.just(f"{TRAIN} folder:photos")),
            st.tuples(BYTES, LENGTH, st.just("images.npz"), st.just(f"{TRAIN} npz:images.npz")),
        ),
        images,
        400,
    ),
}
"""The strategy of the cases of each kind, what is done with one, and the number of cases."""

NEEDS_FOLDER = KINDS.keys() - {"attack strings", "--set"}


@contextlib.contextmanager
def workplace() -> Any:
    """A temporary folder with the template, as the working directory."""
    before, threads = Path.cwd(), torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            (Path(folder) / "template").mkdir()
            os.chdir(Path(folder) / "template")
            make_template()
            yield Path(folder)
        finally:
            os.chdir(before)
            torch.set_num_threads(threads)


def run_kind(name: str, top: Path, examples: int, start: int = 0) -> Counter[str]:
    """Run the cases of one kind; return how many ended in which way. A fault is raised."""
    strategy, check, _ = KINDS[name]
    outcomes: Counter[str] = Counter()
    case_folder = top / "case"

    def attempt(case: Any) -> None:
        if name in NEEDS_FOLDER:
            os.chdir(top)
            shutil.rmtree(case_folder, ignore_errors=True)
            shutil.copytree(top / "template", case_folder)
            os.chdir(case_folder)
        signal.alarm(LIMIT)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = check(case)
        except (InputError, NonFiniteError):
            outcome = "refused"
        finally:
            signal.alarm(0)
        left = [path.name for path in case_folder.rglob("*.partial")]
        assert not left, f"left over: {left}"
        outcomes[outcome] += 1

    def hang(number: int, frame: object) -> None:
        raise TimeoutError(f"no end after {LIMIT} s")

    former = signal.signal(signal.SIGALRM, hang)
    try:
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        chosen = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=checks,
        )
        seed(start)(chosen(given(strategy)(attempt)))()
    finally:
        signal.signal(signal.SIGALRM, former)
        os.chdir(top)
    return outcomes


def run_all(scale: float, only: list[str], start: int) -> None:
    total, faults = 0, 0
    with workplace() as top:
        for name in only or KINDS:
            begun = time.monotonic()
            try:
                outcomes = run_kind(name, top, max(1, round(KINDS[name][2] * scale)), start)
            except Exception as error:
                faults += 1
                text = "\n".join([repr(error), *getattr(error, "__notes__", [])])
                print(f"{name}: FAULT {text}", flush=True)
                if only:
                    raise
                continue
            total += outcomes.total()
            listed = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            seconds = time.monotonic() - begun
            print(f"{name}: {outcomes.total()} cases, {listed}; {seconds:.0f} s", flush=True)
    print(f"total: {total} cases, {faults} faults (seed {start})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of cases")
    parser.add_argument("--only", action="append", default=[], choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run_all(chosen.scale, chosen.only, chosen.seed)
