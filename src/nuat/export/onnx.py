"""Exporting a model to ONNX, verified with onnxruntime; needs the `export` extra."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nuat.checkpoints import LoadedModel, load_model
from nuat.errors import InputError
from nuat.nn.validation import check_logits
from nuat.runtime.extras import import_extra
from nuat.runtime.files import atomic_write

TOLERANCE = 1e-5
"""Allowed difference of a logit, relative to the largest logit if that is above 1."""

BATCH_SIZES = (2, 1, 5)
"""Batches that are verified; the first one is traced.

torch's own `verify=True` compares the traced batch alone, so it would not notice a batch size that
the export has fixed.
"""


def to_onnx(
    source: LoadedModel | Path | str, file: Path | str, size: tuple[int, int] | None = None
) -> float:
    """Export a model to ONNX: `images` [batch, C, H, W] in [0, 1] to `logits` [batch, K].

    The batch may have any size, and a normalization is part of the exported model. onnxruntime must
    give the logits of the model for batches of 1, 2 and 5 random images, to 1e-5.

    Args:
        source: a run folder, a weights file, or a model that `nuat.load_model` returned.
        file: the file to write.
        size: height and width of the images, by default those of the training images.

    Returns:
        The largest difference of the logits, relative to the largest logit if that is above 1.

    Raises:
        InputError: the extra is not installed, the model cannot be exported, or the logits differ;
            no file is written.
    """
    runtime = import_extra("export", "ONNX", "onnxruntime", "onnx", "onnxscript")
    loaded = source if isinstance(source, LoadedModel) else load_model(source)
    shape = int(loaded.metadata.get("channels", 3)), *_image_size(loaded, size)
    model = loaded.model.cpu().eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(batch, *shape, generator=generator) for batch in BATCH_SIZES]
    check_logits(model, batches[0])
    difference = float("nan")

    def write(partial: Path) -> None:
        nonlocal difference
        _export(model, batches[0], partial)
        difference = max(_difference(model, runtime, partial, x) for x in batches)
        if not difference <= TOLERANCE:
            partial.unlink()
            raise InputError(
                f"{file} was not written: the logits in onnxruntime differ by {difference:.1e}"
            )

    atomic_write(Path(file), write)
    return difference


def _image_size(loaded: LoadedModel, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is not None:
        return size
    if "image_size" not in loaded.metadata:
        raise InputError(
            f"the image size of {loaded.model_name} is not recorded: give --size, such as 32"
        )
    height, width = json.loads(loaded.metadata["image_size"])
    return height, width


def _export(model: nn.Module, x: Tensor, file: Path) -> None:
    with _without_exporter_messages():
        try:
            torch.onnx.export(
                model,
                (x,),
                file,
                dynamo=True,
                external_data=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"torch cannot export this model to ONNX: {reason}") from error


@torch.no_grad()
def _difference(model: nn.Module, runtime: Any, file: Path, x: Tensor) -> float:
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    z, (z_onnx,) = model(x), session.run(["logits"], {"images": x.numpy()})
    return float((torch.from_numpy(z_onnx) - z).abs().max()) / max(1.0, float(z.abs().max()))


@contextmanager
def _without_exporter_messages() -> Iterator[None]:
    """Silence warnings and log messages that the exporter writes for its developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
