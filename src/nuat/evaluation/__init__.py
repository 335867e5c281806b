"""Clean and robust accuracy, image by image: resumable, and the same however it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nuat.config.serialization import to_dict
from nuat.data import as_dataset
from nuat.data.validation import check_images
from nuat.errors import InputError
from nuat.evaluation.inference import Precision, build_inference_model
from nuat.evaluation.log import EvaluationLog
from nuat.evaluation.per_image import EvaluationRecord
from nuat.evaluation.request import (
    Attacks,
    applicable_attacks,
    count_runs,
    max_targets,
    parse_attacks,
    select_indices,
)
from nuat.evaluation.result import EvaluationResult
from nuat.evaluation.runner import Batches, EvaluationRunner
from nuat.evaluation.sanity_checks import check_model
from nuat.nn.fingerprint import digest, fingerprint
from nuat.nn.validation import check_logits
from nuat.rng import derive_seed
from nuat.runtime.device import device_of
from nuat.runtime.files import atomic_write
from nuat.runtime.progress import Progress
from nuat.runtime.ranks import barrier, rank, world_size
from nuat.runtime.versions import versions
from nuat.threat_models import Ball

ATTACKS = ("pgd-20", "pgd-100(restarts=5)", "gama-100")
"""What is run when nothing else is asked for."""

PROBES = 32
"""Images that a network is looked at with before it is attacked."""


def evaluate(
    f: nn.Module,
    images: Any,
    ball: Ball,
    attacks: Attacks = ATTACKS,
    *,
    classes: int | None = None,
    samples: int | None = None,
    indices: Sequence[int] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    save_adversarial: bool = False,
    search_precision: Precision = "fp32",
    quiet: bool = True,
) -> EvaluationResult:
    """Attack a network and say which images stand.

    An image falls only to a point that is finite, in [0, 1], within eps + 1e-6, and misclassified
    by f itself in float32, in eval mode, with TF32 off. The search runs on a faster equal of f (see
    `nuat.evaluation.inference`). Noise is keyed to the image: a verdict depends neither on the size and order of
    batches, nor on the number of processes, nor on an interruption (bit for bit on a CPU).

    With `out`, what is done is written down batch by batch, and the same call goes on where a
    killed one was. Under torchrun every process attacks its share of the images.

    Args:
        f: a network, images in [0, 1] [B, C, H, W] to logits [B, K].
        images: Images, a pair of tensors, a torch Dataset or DataLoader, or any iterable of (x, y)
            in [0, 1]; see `nuat.data.as_dataset`.
        ball: the threat model.
        attacks: names such as "pgd-20" or "autoattack", or {name: Attack}; each alone.
        classes: K; by default what the network returns.
        samples: only so many images, balanced over the classes, drawn by the seed.
        indices: only the images at these places.
        batch_size: images attacked at once; by default what suits the device. Halved when memory
            does not suffice.
        seed: of the attacks' noise and of the samples.
        out: a folder for verdicts.jsonl, scores.json and what a resume needs.
        metadata: what else defines this evaluation, such as the names of the data, the split and the
            model; kept in config.json and scores.json.
        save_adversarial: keep the points that images fell to, in adversarial.safetensors.
        search_precision: precision of the search: float32, or bfloat16 as a faster and weaker tier.
        quiet: no progress bar.

    Raises:
        InputError: something given cannot be used; nothing was changed.
    """
    if not isinstance(f, nn.Module):
        raise InputError(
            f"f is {f!r}, not a torch.nn.Module; the network of a run or of a weights file is "
            "nuat.from_pretrained(PATH).f"
        )
    images = as_dataset(images).to(device_of(f))
    images.check()
    attacks, ids = parse_attacks(attacks, ball), select_indices(images, samples, indices, seed)
    batches = Batches.of(batch_size, device_of(f))
    _check_options(search_precision, out, save_adversarial)
    x, y = images.batch(torch.tensor(sorted(ids)[:PROBES]))
    check_images(x)
    with _full_precision():
        classes = check_logits(f, x, classes)
        images.check(classes)
        parts, notes = applicable_attacks(attacks, classes)
        faster = build_inference_model(f, x, search_precision)
        notes += [*check_model(f, x, y), *faster.notes]
        config = {
            "model_fingerprint": fingerprint(f),
            "ball": repr(ball),
            "attacks": {name: to_dict(each) for name, each in attacks.items()},
            "images": {
                "count": len(ids),
                "hash": derive_seed(*sorted(ids)),
                "content": _content(x, images.y[sorted(ids)]),
            },
            "seed": seed,
            "search_precision": search_precision,
            "batchnorm_folded": faster.folded,
            "save_adversarial": save_adversarial,
            "metadata": dict(metadata or {}),
            "versions": versions(),
        }
        journal = EvaluationLog() if out is None else EvaluationLog.start(out, config, rank())
        steps = -(-count_runs(parts, classes) * len(ids) // world_size())
        with Progress("attacking", steps, hidden=quiet) as progress:
            pursuit = EvaluationRunner(
                f, faster, images, journal, batches, seed, save_adversarial, progress
            )
            clean = pursuit.clean(ids, max_targets(parts))
            for name in parts:
                pursuit.attack(name, parts[name], clean, classes)
            barrier()
    journal.reread()
    found = EvaluationRecord(ids, clean, parts, journal.lines)
    scores = _scores(found, config, [*notes, *batches.halvings])
    if out is not None and rank() == 0:
        _write(Path(out), journal, found, scores)
    return scores


def _check_options(search_precision: str, out: Path | str | None, save_adversarial: bool) -> None:
    if search_precision not in ("fp32", "bf16"):
        raise InputError(f"search_precision is {search_precision!r}, but must be 'fp32' or 'bf16'")
    if out is None and (save_adversarial or world_size() > 1):
        raise InputError("to keep adversarial images, or to run several processes, give out=FOLDER")


def _content(x: Tensor, y: Tensor) -> str:
    """A hash of the first images, to 16 bits as devices round apart, and of all labels."""
    return digest({"x": (x * 65535).round().int(), "y": y})


def _scores(found: EvaluationRecord, config: dict[str, Any], notes: list[str]) -> EvaluationResult:
    if config["search_precision"] == "bf16":
        notes.append("build_inference_model in bfloat16, verified in float32: a tier of its own")
    return EvaluationResult(
        indices=list(found.ids),
        labels=[found.clean.label[image] for image in found.ids],
        predicted=[found.clean.predicted[image] for image in found.ids],
        robust=found.standing(),
        seconds=found.seconds(),
        ball=config["ball"],
        attacks=config["attacks"],
        seed=config["seed"],
        model_fingerprint=config["model_fingerprint"],
        versions=config["versions"],
        parts={name: found.tally(name) for name in found.parts},
        notes=[*notes, *found.check_outcome()],
        search_precision=config["search_precision"],
        metadata=config["metadata"],
    )


def _write(
    out: Path, journal: EvaluationLog, found: EvaluationRecord, scores: EvaluationResult
) -> None:
    """The files that a reader wants."""
    lines = "".join(json.dumps(record) + "\n" for record in found.records())
    atomic_write(out / "verdicts.jsonl", lambda file: file.write_text(lines))
    if kept := journal.points():
        tensors = {}
        for name, points in kept.items():
            tensors[f"{name}/id"] = torch.tensor(sorted(points))
            tensors[f"{name}/x"] = torch.stack([points[image] for image in sorted(points)])
        atomic_write(out / "adversarial.safetensors", lambda file: file.write_bytes(save(tensors)))
    text = json.dumps(scores.to_dict()) + "\n"
    atomic_write(out / "scores.json", lambda file: file.write_text(text))


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 as float32: no TF32, and on a CPU no bfloat16, in products or convolutions."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    settings = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


__all__ = ["ATTACKS", "EvaluationResult", "evaluate"]
