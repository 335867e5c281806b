"""Attack the trained network: each attack in chunks of images, until the time is up.

    bash benchmarks/gpu/run.sh attack

An attack on all images is one chunk. AutoAttack takes chunks that are balanced over the classes,
so that the verdict on each finished chunk is whole; a chunk that the time cuts goes on later.
ATTACKS names the attacks: "pgd-20 gama-100 autoattack-v1/500 autoattack-v1@bf16/500". After the
slash comes the size of a chunk, after @ the precision of the search (verified in float32).
"""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path

import torch
from common import DEVICE, WORK, TimeUp, say, seconds_asked, seconds_left, time_limit

from nuat.checkpoints import load_model, read_metadata
from nuat.data import load_dataset
from nuat.evaluation import evaluate
from nuat.evaluation.intervals import wilson

DEFAULT = "pgd-20@bf16 gama-100@bf16 autoattack-v1@bf16/500 gama-100/1000"


def balanced_chunks(y: torch.Tensor, size: int) -> list[list[int]]:
    """All images in an order in which every slice of `size` has the classes in equal shares."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(y), generator=generator)
    seen: dict[int, int] = {}
    place = []
    for index in order.tolist():
        label = int(y[index])
        place.append((seen.setdefault(label, 0), label, index))
        seen[label] += 1
    ranked = [index for *_, index in sorted(place)]
    return [ranked[first : first + size] for first in range(0, len(ranked), size)]


def shares(name: str, robust: list[bool], clean: list[bool]) -> None:
    texts = []
    for kind, verdicts in (("clean", clean), (name, robust)):
        low, high = wilson(sum(verdicts), len(verdicts))
        texts.append(f"{kind} {sum(verdicts) / len(verdicts):.2%} ({low:.2%} to {high:.2%})")
    say(f"{name}: {len(robust)} images: {', '.join(texts)}")


def attack(text: str, run: Path, out: Path) -> None:
    text, _, size = text.partition("/")
    name, _, precision = text.partition("@")
    loaded = load_model(run, device=DEVICE)
    data = read_metadata(run)["data"]
    test = load_dataset(data).test
    assert loaded.ball is not None
    chunks = balanced_chunks(test.y, int(size)) if size else [list(range(len(test)))]
    robust: list[bool] = []
    clean: list[bool] = []
    for number, chunk in enumerate(chunks):
        began = time.monotonic()
        folder = out / f"{text.replace('@', '-')}-{number:03d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        result = evaluate(
            loaded.model,
            test,
            loaded.ball,
            [name],
            indices=chunk,
            out=folder,
            metadata={"data": data, "split": "test", "model": loaded.model_name},
            search_precision=precision or "fp32",  # type: ignore[arg-type]
            cuda_graphs=bool(os.environ.get("ATTACK_GRAPHS")),
        )
        robust += next(iter(result.robust.values()))
        clean += [a == b for a, b in zip(result.labels, result.predicted, strict=True)]
        shares(text, robust, clean)
        say(f"    the last chunk took {time.monotonic() - began:.1f} s")
        for note in result.notes if number == 0 else ():
            say(f"    note: {note}")
        row = {"attack": text, "images": len(robust), "clean": sum(clean), "robust": sum(robust)}
        (out / f"{text.replace('@', '-')}.json").write_text(json.dumps(row) + "\n")


def main() -> None:
    limit = seconds_asked(__doc__.splitlines()[0], 240)
    run, out = WORK / "cifar10" / "run", WORK / "cifar10" / "attacks"
    if not (run / "model.safetensors").exists():
        raise SystemExit("error: nothing is trained yet; run the stage train")
    epoch = read_metadata(run)["epoch"]
    # the attacks of other weights are other attacks
    out = out / f"epoch-{epoch}"
    say(f"the weights of epoch {epoch} of {run}")
    waiting = os.environ.get("ATTACKS", DEFAULT).split()
    try:
        with time_limit(seconds_left(limit)):
            while waiting:
                try:
                    attack(waiting[0], run, out)
                except Exception:  # the next attack may work
                    say(f"{waiting[0]}: FAILED: {traceback.format_exc()}")
                waiting.pop(0)
        say("every attack is through")
    except TimeUp:
        say(f"time is up in {waiting[0]}, not begun: {waiting[1:]}")


if __name__ == "__main__":
    main()
