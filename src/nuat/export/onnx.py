"""A network as an ONNX file, compared with what onnxruntime makes of it."""

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
from nuat.export.extras import extra
from nuat.nn.validation import check_logits
from nuat.runtime.files import atomic_write

TOLERANCE = 1e-5
"""Of a logit, or of the largest logit where that is above 1."""


def to_onnx(
    source: LoadedModel | Path | str, file: Path | str, size: tuple[int, int] | None = None
) -> float:
    """Write a network as ONNX: `images` [batch, C, H, W] in [0, 1] to `logits` [batch, K].

    The batch is of any size; normalization, if there is any, is inside. The file is run in
    onnxruntime on batches of 1, 2 and 5 images and must give the same logits to 1e-5.

    Args:
        source: a run folder, a weights file, or a network that `trained` has opened.
        file: where to write.
        size: height and width of the images; by default those it was trained on.

    Returns:
        The largest difference that was found.

    Raises:
        InputError: the extra is missing, the network cannot be exported, or the logits differ;
            nothing is written.
    """
    runtime = extra("export", "onnxruntime", "onnx", "onnxscript")
    network = source if isinstance(source, LoadedModel) else load_model(source)
    shape = int(network.about.get("channels", 3)), *_size(network, size)
    f = network.model.cpu().eval()
    batches = [torch.rand(batch, *shape, generator=_seeded()) for batch in (1, 2, 5)]
    check_logits(f, batches[0])
    off = float("nan")

    def write(partial: Path) -> None:
        nonlocal off
        _export(f, batches[1], partial)
        off = max(_difference(f, runtime, partial, x) for x in batches)
        if not off <= TOLERANCE:
            partial.unlink()
            raise InputError(f"the exported network differs by {off:.1e} in onnxruntime: {file}")

    atomic_write(Path(file), write)
    return off


def _size(network: LoadedModel, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None and "size" not in network.about:
        raise InputError(
            f"the size of {network.model_name}'s images is not known: give --size, as 32"
        )
    height, width = size or json.loads(network.about["size"])
    return height, width


def _export(f: nn.Module, x: Tensor, file: Path) -> None:
    with _quiet():
        try:
            torch.onnx.export(
                f,
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
            first = str(error).strip().splitlines()[0]
            raise InputError(f"torch cannot export this network to ONNX: {first}") from error


@torch.no_grad()
def _difference(f: nn.Module, runtime: Any, file: Path, x: Tensor) -> float:
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    z, (there,) = f(x), session.run(["logits"], {"images": x.numpy()})
    return float((torch.from_numpy(there) - z).abs().max()) / max(1.0, float(z.abs().max()))


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its developers."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
