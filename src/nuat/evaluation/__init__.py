"""Clean and robust accuracy of a model, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from nuat.evaluation.log import EvaluationLog
from nuat.evaluation.request import DEFAULT_ATTACKS, Attacks, resolve_request
from nuat.evaluation.result import EvaluationResult, summarize, write_results
from nuat.evaluation.runner import BatchSize, EvaluationRunner, predict_clean
from nuat.evaluation.search_model import Precision
from nuat.runtime.grad_mode import gradients_enabled
from nuat.runtime.locks import lock_folder
from nuat.runtime.precision import full_precision
from nuat.runtime.ranks import rank
from nuat.threat_models import Ball


@gradients_enabled()
@full_precision()
def evaluate(
    model: nn.Module,
    images: Any,
    ball: Ball,
    attacks: Attacks = DEFAULT_ATTACKS,
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
    cuda_graphs: bool | None = None,
    max_time: float | None = None,
    quiet: bool = True,
) -> EvaluationResult:
    """Attack a model and measure its clean and robust accuracy.

    An attack succeeds on an image if it returns an x_adv that is finite, in [0, 1], within
    eps + 1e-6 of the image, and misclassified by `model` itself in eval mode, in float32, with TF32
    off; logits that are NaN are never correct. The verdict on an image is whether it is robust:
    classified correctly, and the attack does not succeed. Attacks run on the search model, a faster
    copy of `model` (see `nuat.evaluation.search_model`). Each image has its own noise, so a verdict
    depends neither on the batch size, nor on the order of images, nor on the number of processes,
    nor on interruptions; on a CPU the verdicts are bitwise identical.

    With `out`, every finished batch is logged, and calling `evaluate` again with the same arguments
    resumes an interrupted evaluation. Under torchrun each process attacks a part of the images.

    Args:
        model: maps images in [0, 1] [B, C, H, W] to logits [B, K].
        images: an ImageDataset, a pair of tensors, a torch Dataset or DataLoader, or any iterable
            of (x, y) with x in [0, 1]; see `nuat.data.as_dataset`.
        ball: the threat model.
        attacks: names such as "pgd-20" or "autoattack", or {name: Attack}. Each attack runs on all
            images, independently of the others.
        classes: K; by default, the number of logits.
        samples: attack only this many images, balanced over the classes and drawn by `seed`.
        indices: attack only the images at these indices.
        batch_size: images attacked at once; by default 1024 on a GPU and 128 on a CPU. It is halved
            when memory runs out.
        seed: seed of the attacks' noise and of `samples`.
        out: a folder for the log and the results; see docs/file_formats.md.
        metadata: stored with the results, such as the names of the data, the split and the model.
        save_adversarial: also store the adversarial images, in float32 and as PNG files; requires
            `out`.
        search_precision: "fp32", or "bf16" to search faster and less accurately. Every adversarial
            image is verified in float32 in both cases.
        cuda_graphs: replay the iterates of APGD, FAB and Square as CUDA graphs, as is the default
            on a GPU. A model that cannot be captured is attacked without, and a note says so.
        max_time: begin no further batch after this many seconds; requires `out`.
        quiet: hide the progress bar.

    Returns:
        The accuracies, the verdict on each image, and notes on what may make them misleading.

    Raises:
        InputError: an argument is invalid, or `out` contains another evaluation.
        nuat.Stopped: `max_time` was over before the end; the same call goes on.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    >>> result = nuat.evaluate(model, images, nuat.Linf(0.1), ["fgsm", "pgd-5"])
    >>> result.worst_case_accuracy <= result.robust_accuracy("fgsm") <= result.clean_accuracy
    True
    """
    request = resolve_request(
        model, images, ball, attacks, classes=classes, samples=samples, indices=indices,
        batch_size=batch_size, seed=seed, out=out, metadata=metadata,
        save_adversarial=save_adversarial, search_precision=search_precision,
        cuda_graphs=cuda_graphs, max_time=max_time,
    )  # fmt: skip
    EvaluationLog.check_folder(request.out, request.config())
    size = BatchSize(request.batch_size)
    clean = predict_clean(request, size)
    log = EvaluationLog.open(request.out, request.config(clean), rank())
    with nullcontext() if request.out is None else lock_folder(request.out, f"lock-{rank()}"):
        log.reload()
        runner = EvaluationRunner(request, log, clean, size)
        record = runner.run(quiet)
        notes = [*request.notes, *runner.notes, *size.notes]
        result = summarize(request, record, notes)
        if request.out is not None and rank() == 0:
            write_results(request.out, log, record, result)
    return result


__all__ = ["DEFAULT_ATTACKS", "EvaluationResult", "evaluate"]
